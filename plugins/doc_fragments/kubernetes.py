# Copyright (c) the restorepoint.core authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The connection options of modules that speak to Kubernetes, documented once; bridge/kubernetes.py is their spec."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  kubeconfig:
    description:
      - The path of a kubeconfig file on the host that runs the module, or the content of one as a mapping.
      - Without this, O(context) and complete credentials for O(host), the service account of the pod is used where
        the module runs in one, else the files that E(KUBECONFIG) names, else C(~/.kube/config).
      - Read from E(K8S_AUTH_KUBECONFIG) when it is not set.
    type: raw
  context:
    description:
      - The context of the kubeconfig to use, instead of its current one.
      - Read from E(K8S_AUTH_CONTEXT) when it is not set.
    type: str
  host:
    description:
      - The URL of the API server, such as V(https://10.0.0.1:6443).
      - With O(api_key), or with O(username) and O(password), no kubeconfig is read. With O(client_cert) and
        O(client_key) it is read only where O(kubeconfig) or O(context) is set.
      - Read from E(K8S_AUTH_HOST) when it is not set.
    type: str
  api_key:
    description:
      - The bearer token to log in with.
      - Read from E(K8S_AUTH_API_KEY) when it is not set.
    type: str
  username:
    description:
      - The user name for HTTP basic authentication. Kubernetes itself does not offer that any more, but a proxy in
        front of it may.
      - Read from E(K8S_AUTH_USERNAME) when it is not set.
    type: str
  password:
    description:
      - The password that goes with O(username).
      - Read from E(K8S_AUTH_PASSWORD) when it is not set.
    type: str
  client_cert:
    description:
      - The path of the client certificate to log in with. Needs O(client_key).
      - Read from E(K8S_AUTH_CLIENT_CERT) or E(K8S_AUTH_CERT_FILE) when it is not set.
    type: path
    aliases:
      - cert_file
  client_key:
    description:
      - The path of the private key of O(client_cert).
      - Read from E(K8S_AUTH_CLIENT_KEY) or E(K8S_AUTH_KEY_FILE) when it is not set.
    type: path
    aliases:
      - key_file
  ca_cert:
    description:
      - The path of the certificate of the CA that signed the API server's own, with its whole chain.
      - Read from E(K8S_AUTH_CA_CERT) or E(K8S_AUTH_SSL_CA_CERT) when it is not set.
    type: path
    aliases:
      - ssl_ca_cert
  validate_certs:
    description:
      - Whether the API server has to prove who it is. It has to when neither this nor the kubeconfig says otherwise.
      - Read from E(K8S_AUTH_VALIDATE_CERTS) or E(K8S_AUTH_VERIFY_SSL) when it is not set.
    type: bool
    aliases:
      - verify_ssl
  proxy:
    description:
      - The URL of an HTTP proxy to the API server.
      - Read from E(K8S_AUTH_PROXY) when it is not set.
    type: str
  no_proxy:
    description:
      - A comma-separated list of hosts, domains and networks that are reached without O(proxy).
      - Read from E(K8S_AUTH_NO_PROXY) when it is not set.
    type: str
  proxy_headers:
    description:
      - Headers for the proxy.
    type: dict
    suboptions:
      proxy_basic_auth:
        description:
          - User name and password for the proxy, with a colon between them.
          - Read from E(K8S_AUTH_PROXY_HEADERS_PROXY_BASIC_AUTH) when it is not set.
        type: str
      basic_auth:
        description:
          - User name and password for an C(Authorization) header, with a colon between them.
          - Read from E(K8S_AUTH_PROXY_HEADERS_BASIC_AUTH) when it is not set.
        type: str
      user_agent:
        description:
          - The name of the client, such as V(backup/1.0).
          - Read from E(K8S_AUTH_PROXY_HEADERS_USER_AGENT) when it is not set.
        type: str
  persist_config:
    description:
      - Whether a token that was renewed during login is written back to the kubeconfig file. It is not by default.
      - Read from E(K8S_AUTH_PERSIST_CONFIG) when it is not set.
    type: bool
  impersonate_user:
    description:
      - The user to act as. Your own user needs the right to impersonate that one.
      - Read from E(K8S_AUTH_IMPERSONATE_USER) when it is not set.
    type: str
  impersonate_groups:
    description:
      - The groups to act as a member of. Needs O(impersonate_user).
      - Read from E(K8S_AUTH_IMPERSONATE_GROUPS), separated by commas, when it is not set.
    type: list
    elements: str
notes:
  - Logins by a token or a client certificate, to a server whose CA is named, need no Python package, but PyYAML for a
    kubeconfig in YAML. All else takes the C(kubernetes) package, 24 or newer - plugins that log in, passwords,
    proxies, impersonation, and servers with a certificate of a public CA.
  - The options, aliases and environment variables for the connection to Kubernetes are those of the
    C(kubernetes.core) collection. The environment is that of the module, on the host that runs it.
"""
