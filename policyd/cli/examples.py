"""Examples of every command, as its `--help` shows them. A test runs each of them.

Rule 1: the folder that they speak of has policies/ with cases in it, main/ (the policies as they were), records/ of
        what policies/ did, tls/ with certificates, recorded.jsonl, key.txt and wrong.txt. The examples of one command
        follow one another.
"""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "demo": (
        ("policyd demo", "the story, a minute long"),
        ("policyd demo --keep", "and leave it up, for curl and SDKs"),
    ),
    "serve": (
        ("policyd serve --policies policies/ --listen unix:policyd.sock", "beside Envoy, counters in memory"),
        (
            "policyd serve --policies policies/ --listen unix:policyd.sock --mode Monitor --records records/",
            "watch only, and write what was decided",
        ),
        (
            "policyd serve --policies policies/ --listen 0.0.0.0:50051 --tls-cert tls/tls.crt --tls-key tls/tls.key "
            "--tls-client-ca tls/ca.crt --tls-client-san spiffe://cluster.local/ns/*/sa/envoy",
            "for Envoys elsewhere: over TLS, for those only whose certificates say so",
        ),
    ),
    "check": (
        ("policyd check policies/", "everything below a folder"),
        ("policyd check policies/ --format github", "annotations in a pull request"),
        ("policyd check policies/ --explain", "what was derived: phases, reads, Envoy's part"),
        ("policyd check policies/ --target ai-gateway", "and what Envoy AI Gateway undoes"),
    ),
    "test": (
        ("policyd test policies/", "every case below a folder"),
        ("policyd test policies/ --format junit > report.xml", "for a CI server"),
    ),
    "replay": (
        ("policyd replay --policies policies/ recorded.jsonl", "what they would have done"),
        ("policyd replay --policies policies/ --format json recorded.jsonl > verdicts.json", "for a program"),
    ),
    "diff": (
        ("policyd diff --from main/ --to policies/ recorded.jsonl", "what a change would do"),
        ("policyd diff --from main/ --to policies/ --max-newly-stopped 0 recorded.jsonl", "block one that stops more"),
    ),
    "cost": (
        ("policyd cost recorded.jsonl --format json > baseline.json", "what conversations cost"),
        ("policyd cost recorded.jsonl --against baseline.json --max-increase 5%", "block what makes them dearer"),
    ),
    "explain": (
        ("policyd explain --policies policies/ recorded.jsonl#0", "why the first call got its verdict"),
        ("policyd explain --policies policies/ --format json recorded.jsonl#0", "for a program"),
    ),
    "promote": (
        (
            "policyd promote words --policies policies/ --records records/ --max-would-stop 1%",
            "whether it may be enforced",
        ),
        (
            "policyd promote words --policies policies/ --records records/ --disputed wrong.txt --write",
            "and enforce it, unless a stop is disputed",
        ),
    ),
    "schema": (("policyd schema policy > policy.json", "for an editor that is offline"),),
    "operator": (("policyd operator", "in a pod; or the current context of a kubeconfig"),),
    "crds": (("policyd crds > crds.yaml", "then `kubectl apply --server-side -f crds.yaml`"),),
    "envoy bootstrap": (
        ("policyd envoy bootstrap --policies policies/ > envoy.yaml", "for the default provider"),
        (
            "policyd envoy bootstrap --policies policies/ --upstream openai=https://api.openai.com > envoy.yaml",
            "for a named one",
        ),
        (
            "policyd envoy bootstrap --policies policies/ --extproc policyd.example:50051 --extproc-ca /tls/ca.crt "
            "--extproc-cert /tls/tls.crt --extproc-key /tls/tls.key --extproc-sds /etc/envoy/sds > envoy.yaml",
            "policyd elsewhere, over TLS",
        ),
    ),
    "envoy sds": (
        (
            "policyd envoy sds certificate --extproc-cert /tls/tls.crt --extproc-key /tls/tls.key "
            "> policyd_certificate.yaml",
            "into the folder of --extproc-sds",
        ),
        ("policyd envoy sds authority --extproc-ca /tls/ca.crt > policyd_authority.yaml", "beside it"),
    ),
    "envoy extension-policy": (
        ("policyd envoy extension-policy --policies policies/ > policyd-eg.yaml", "for Envoy Gateway's Gateway `eg`"),
        (
            "policyd envoy extension-policy --policies policies/ --target HTTPRoute/chat "
            "--extproc policyd.policyd.svc:50051 > policyd-eg.yaml",
            "for one route, policyd in a namespace of its own",
        ),
    ),
    "key-id": (("policyd key-id < key.txt", "a credential's name in rules and records"),),
}


def epilog(command: str) -> str:
    """The examples of a command as the end of its help; blank lines, for only they end a line there."""
    shown = EXAMPLES.get(command, ())
    if not shown:
        return ""
    lines = [f"{example}  # {what}" for example, what in shown]
    return "\n\n".join(["Examples:", *lines])
