# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The style of the report's page, as one text. It has no picture, no font and no address in it."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--bg:#f5f7f8;--card:#fff;--line:#dfe4e8;--text:#1f2a33;--quiet:#5a6672;--mark:#2f6f8f;
--ok:#1d6b47;--ok-bg:#e4f3ea;--warning:#7d5200;--warning-bg:#fbefd6;--critical:#a8261d;--critical-bg:#fce7e4;
--unknown:#5b4a9c;--unknown-bg:#ece8f9;--rail:#e6eaed}
@media (prefers-color-scheme:dark){:root{--bg:#13181c;--card:#1b2228;--line:#2d373f;--text:#e2e8ec;--quiet:#9fadb8;
--mark:#6fb7d6;--ok:#6fcf9b;--ok-bg:#18352a;--warning:#e9b85c;--warning-bg:#3a2e14;--critical:#ff9a8f;
--critical-bg:#43201d;--unknown:#b9a9f5;--unknown-bg:#2b2545;--rail:#2a333a}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
header,main,footer{max-width:68rem;margin:0 auto;padding:1rem}
header{padding-top:2rem}
h1,h2,h3,h4,h5{line-height:1.25;margin:0;font-weight:650}
h1{font-size:1.75rem}h2{font-size:1.3rem}h3{font-size:1.1rem}h4,h5{font-size:1rem}
section,.part{margin:0 0 2rem}
section>h2,.part>h3{margin:0 0 .75rem}
p,ul,dl{margin:0;padding:0}ul{list-style:none}
a{color:var(--mark)}
.quiet,time{color:var(--quiet)}
.small{font-size:.875rem}
.row{display:flex;flex-wrap:wrap;gap:.25rem .75rem;align-items:center}
.pill{display:inline-block;border-radius:1rem;padding:.05rem .65rem;font-size:.8125rem;font-weight:600;
max-width:100%}
.ok{color:var(--ok);background:var(--ok-bg)}
.warning{color:var(--warning);background:var(--warning-bg)}
.critical{color:var(--critical);background:var(--critical-bg)}
.unknown{color:var(--unknown);background:var(--unknown-bg)}
.card{background:var(--card);border:1px solid var(--line);border-radius:.75rem;padding:1rem 1.25rem}
.card+.card{margin-top:1rem}
.lead{margin-top:.5rem;font-size:1.0625rem}
.calm{border-radius:.75rem;padding:.75rem 1.25rem}
.problems li{background:var(--card);color:var(--text);border:1px solid var(--line);border-left:.375rem solid;
border-radius:.5rem;padding:.625rem 1rem;margin-top:.5rem}
.problems li.critical{border-left-color:var(--critical)}
.problems li.warning{border-left-color:var(--warning)}
.problems li.unknown{border-left-color:var(--unknown)}
.problems b{font-weight:600}
.grid{display:grid;gap:.75rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,18rem),1fr))}
.grid .card{margin:0;padding:.75rem 1rem}
svg{display:block;overflow:visible}
.bar{margin:.375rem 0 .25rem}
.bar rect{fill:var(--rail)}
.bar .ok{fill:var(--ok)}.bar .warning{fill:var(--warning)}.bar .critical{fill:var(--critical)}
.facts{display:grid;gap:.125rem 1.5rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,8.5rem),1fr));
margin:.75rem 0 0}
.facts dt{color:var(--quiet);font-size:.8125rem}
.facts dd{margin:0 0 .25rem}
.target{border-top:1px solid var(--line);margin-top:1rem;padding-top:1rem}
.time{margin:.75rem 0 .25rem}
.time line{stroke:var(--line);stroke-width:2}
.time text{fill:var(--quiet);font-size:.75rem}
.sign{flex:none;width:1rem;height:1rem}
.kept,.other{fill:var(--mark);stroke:var(--card)}
.other{fill:var(--quiet)}
.manual{fill:var(--unknown);stroke:var(--card)}
.going{fill:var(--card);stroke:var(--quiet);stroke-width:2}
.broken{fill:none;stroke:var(--critical);stroke-width:3}
.chips{display:flex;flex-wrap:wrap;gap:.375rem;margin:.5rem 0}
.chips li{border:1px solid var(--line);border-radius:1rem;padding:.05rem .65rem;font-size:.8125rem}
details{margin-top:.5rem}
summary{cursor:pointer;color:var(--mark);font-size:.9375rem;padding:.25rem 0}
summary:focus-visible,a:focus-visible{outline:2px solid var(--mark);outline-offset:2px;border-radius:.25rem}
.host{margin:0 0 1.5rem}
.host>summary{color:var(--text);border-bottom:1px solid var(--line);padding:.5rem 0;margin-bottom:1rem}
.host>summary h2{display:inline}
.tree li{display:flex;gap:.625rem;padding:.375rem 0;border-bottom:1px solid var(--line);font-size:.9375rem}
.tree li:last-child{border-bottom:0}
.tree li>div{min-width:0}
.tree .sign{margin-top:.25rem}
.tree .d1{padding-left:1rem}.tree .d2{padding-left:2rem}.tree .d3{padding-left:3rem}
.name{font-family:ui-monospace,monospace;font-size:.875rem}
.gone .name{text-decoration:line-through;color:var(--quiet)}
.legend{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;margin:0 0 .75rem}
.legend li{display:flex;gap:.375rem;align-items:center}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
footer{color:var(--quiet);font-size:.875rem;padding-bottom:2rem}
@media (max-width:30rem){header,main,footer{padding-left:.75rem;padding-right:.75rem}.card{padding:.875rem}}
@media print{body{background:#fff}.card{break-inside:avoid}}
"""
