# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Interrupts end a run in order, but wait while something counts. Real signals, sent to this process."""

from __future__ import annotations

import signal
import threading

import pytest

from ansible_collections.restorepoint.core.plugins.module_utils.interrupts import SIGNALS, Interrupts, deferred


@pytest.fixture
def interrupts():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    found = Interrupts()
    found.install()
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_an_interrupt_that_says_its_name(interrupts, number):
    with pytest.raises(KeyboardInterrupt, match=number.name):
        signal.raise_signal(number)


def test_an_interrupt_waits_until_the_end_of_what_counts(interrupts):
    done = []

    def count():
        with interrupts.held():
            signal.raise_signal(signal.SIGTERM)
            done.append("counted")
        done.append("never reached")

    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        count()
    assert done == ["counted"]


def test_it_waits_for_the_outermost_block(interrupts):
    done = []

    def count():
        with interrupts.held():
            with interrupts.held():
                signal.raise_signal(signal.SIGHUP)
            done.append("after the inner one")

    with pytest.raises(KeyboardInterrupt):
        count()
    assert done == ["after the inner one"]


def test_an_error_goes_before_an_interrupt_that_waited(interrupts):
    def fail():
        with interrupts.held():
            signal.raise_signal(signal.SIGTERM)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_without_a_signal_nothing_happens(interrupts):
    with interrupts.held():
        pass


def test_an_interrupt_interrupts_once(interrupts):
    with pytest.raises(KeyboardInterrupt), interrupts.held():
        signal.raise_signal(signal.SIGTERM)
    with interrupts.held():
        pass


def test_after_what_counts_interrupts_do_not_wait_any_more(interrupts):
    with interrupts.held():
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_a_run_under_nohup_goes_on_after_a_hangup(interrupts):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Interrupts().install()
    signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupt_is_deferred_whoever_handles_it(interrupts, number):
    done = []

    def start():
        with deferred():
            signal.raise_signal(number)
            done.append("started")
        done.append("never reached")

    handlers = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(KeyboardInterrupt, match=number.name):
        start()
    assert done == ["started"]
    assert [signal.getsignal(each) for each in SIGNALS] == handlers


def test_a_deferred_interrupt_is_not_lost_in_an_error(interrupts):
    def fail():
        with deferred():
            signal.raise_signal(signal.SIGTERM)
            raise ValueError

    with pytest.raises(KeyboardInterrupt):
        fail()


def test_a_deferred_interrupt_goes_on_waiting_while_something_counts(interrupts):
    done = []

    def count():
        with interrupts.held():
            with deferred():
                signal.raise_signal(signal.SIGHUP)
            done.append("counted")

    with pytest.raises(KeyboardInterrupt, match="SIGHUP"):
        count()
    assert done == ["counted"]


def test_signals_that_are_ignored_stay_ignored_while_others_are_deferred(interrupts):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with deferred():
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_in_another_thread_nothing_is_deferred():
    done = []

    def act():
        with deferred():
            done.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    assert done == [signal.getsignal(signal.SIGINT)]
