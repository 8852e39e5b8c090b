"""Other words for the names that a policy may use: what authors who come from other systems write first.

Rule 1: a synonym only ever makes a suggestion; it is never accepted in place of the name.
Rule 2: words are compared in lower case, without `_`, `-` and spaces, and without a plural `s`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Words = Mapping[str, frozenset[str]]


def plainly(word: object) -> str:
    """A word as it is compared: lower case, letters and digits alone."""
    return "".join(char for char in str(word).lower() if char.isalnum())


def singular(word: str) -> str:
    """A plain word without its plural."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def _table(text: str) -> Words:
    lines = (line.partition(":") for line in text.strip().splitlines())
    return {name.strip(): frozenset(singular(plainly(word)) for word in words.split()) for name, _, words in lines}


FIELDS = _table("""
when: condition if expression expr cel where predicate trigger test on only_if celexpression matchexpression
terminate: deny block reject refuse abort stop kill cancel forbid drop disallow cut end fail halt disconnect close
allow: permit exempt accept pass bypass skip ignore except exempts exemption include only whitelist allowlist allowed
constrain: modify mutate mutation change transform restrict patch adjust edit rewrite constraint modifications
reroute: route redirect switch forward downgrade routeto usemodel failover divert reroute_to fallback_model
escalate: approve approval review humanreview
status: code statuscode httpstatus httpcode http_status_code
message: body text error msg detail description content errormessage
fallback: default answer reply fallbackmessage completion response fallbacktext fallback_response otherwise
reason: cause errorcode type why
finish: finishreason stopreason
spec: policy definition
metadata: meta info
name: id title key identifier rulename
namespace: ns
mode: enforcement enforcementmode enforce validationactions enforcementaction
severity: level priority importance
failurePolicy: onerror failmode failopen onfailure failclosed failuremode errorpolicy
description: summary comment doc note about
match: matches matchconstraint selector matchresources appliesto applyto target resources
matchConditions: condition precondition prerequisites guards matchexpressions
params: parameter arg constant config settings data
variables: var local let definition vars computed
counters: counter budget limit quota ratelimit meter metering ratelimits usage
rules: rule policies policy validation check statement validations
targetRefs: targetref parentref target
runningCalls: inflight runningcall liveupdate
operations: operation method verb endpoint apis
models: model modelname allowedmodels
providers: provider vendor
paths: path url route uri
charge: unit metric type measure count what counts kind charges resource
window: period interval duration per ttl reset timeframe every resetafter timewindow
limit: max maximum budget quota threshold amount value cap ceiling
key: by groupby partition partitionby dimension identity for descriptor
clamp: cap capmaxtokens clip
onExceeded: onlimit action overflow exceed onexceed exceededaction onover onlimitexceeded
onMissing: missing ifmissing missingkey
onUnpriced: unpriced
lifetime: ttl duration period length total fixed seconds
sliding: rolling moving slidingwindow rate seconds minutes interval window
idle: inactivity timeout idletimeout
calendar: cron every reset period unit
timeZone: tz zone
by: key per groupby field
default: fallback otherwise else
values: override exception map case limit
set: add append overwrite override assign
remove: delete drop unset strip
cap: max limit maximum atmost
tools: tool function
inject: prepend append prompt systemprompt addprompt
headers: header httpheaders
redact: mask censor anonymize anonymise scrub pii hide filter redaction sanitize obfuscate dlp
pace: throttle slow rate delay speed ratelimit
deny: block exclude disallow blocked blocklist denylist forbid remove blacklist denied
system: prompt systemprompt text content message instruction
detectors: type entity kind pii detect detection infotypes category
patterns: regex regexp expression regexes
in: where direction scope side applyto target
replacement: replace with mask replacewith replaceby substitute token
tokens_per_second: tps rate tokenspersecond speed tokenpersec tokensps
model: to target modelname use destination with
upstream: cluster backend host provider endpoint url to service
keepCredentials: keepauth forwardcredentials
request: req inbound input
response: resp outbound output res
holdBack: buffer hold lookahead holdback delay
messageExpression: messagecel messageexpr
fallbackExpression: fallbackcel
expression: value cel expr when condition rule
distinct: unique countdistinct different
percent: percentage share weight rate
max_tokens: max_completion_tokens max_output_tokens maxoutputtokens output_tokens maxtokens tokens completion_tokens
labels: label tags
""")

VALUES = _table("""
Full: enforce enforcing enforced on active deny block strict hard enabled true all reject prevent
Soft: partial lenient critical
Monitor: audit dryrun log shadow observe warn report off disabled test permissive detect none false logonly simulate
Fail: closed failclosed deny block terminate reject error abort
Ignore: open failopen allow pass continue warn
Terminate: block deny reject refuse fail stop abort kill forbid drop enforce
Continue: allow warn log ignore monitor none pass audit skip
Medium: warning warn moderate normal default med
High: error major severe urgent
Critical: fatal blocker emergency p0 crit highest block
Low: minor notice p3
Info: debug none informational information trace
Cost: usd dollar money spend price costusd spending eur
Requests: call request count hit invocation requestcount req
TotalTokens: token total tokencount usage
InputTokens: input prompt prompttoken inputtoken
OutputTokens: output completion completiontoken generated
CachedInputTokens: cached cachedtoken cache
ReasoningTokens: reasoning thinking thought
Attempts: try attempt tries
Refusals: denial rejection blocked failure
Day: daily 1d 24h perday everyday
Week: weekly 7d 1w perweek
Month: monthly 30d 1mo permonth
Year: yearly annual annually 365d
Refuse: deny fail reject block terminate error
Skip: allow ignore pass none continue
Share: shared default common
Estimate: guess approximate
Tenant: local namespace pertenant
Global: cluster all shared
MaxTokens: max_tokens true yes maxtoken
refusal: contentfilter content_filter safety error
length: maxtoken max_tokens
stop: endturn end_turn end
request: input prompt inbound req
response: answer output completion reply outbound resp result
chat: chatcompletion chat.completion completions message responses generate messages chat/completions generatecontent
completion: textcompletion text_completion
embedding: embed vector embeddings
tool_call: tool mcp function functioncall tools
image: picture imagegeneration
audio: speech tts transcription voice stt
rerank: reranking
moderation: moderate
token_count: counttoken tokenize
storage: file upload
retrieval: vectorstore search
unknown: unrecognized unrecognised
LLMPolicy: policy llmpolicies
ClusterLLMPolicy: clusterpolicy globalpolicy
phone: phonenumber telephone mobile tel phone_no msisdn cellphone fax
card: creditcard pan creditcardnumber debitcard cc cardnumber paymentcard visa
email: mail emailaddress e-mail
ssn: socialsecurity socialsecuritynumber ussn us_ssn
ipv4: ip ipaddress ipv4address ipaddr
aws_key: aws awsaccesskey awssecret awsaccesskeyid aws_secret_key
openai_key: openai apikey openaiapikey api_keys key
anthropic_key: anthropic anthropicapikey claudekey
google_key: google gcpkey googleapikey gcp
github_token: github githubpat ghp pat
slack_token: slack
private_key: pem rsakey rsa privatekey sshkey ssh rsa_private_key
iban: bankaccount bank accountnumber
jwt: token bearer jsonwebtoken
assistant: bot ai model
user: human
""")


def nearest_of(written: object, names: Iterable[str], words: Words = FIELDS) -> str | None:
    """The name that says the same in other words or another spelling, if one does."""
    every = list(names)
    text = plainly(written)
    same = next((name for name in every if plainly(name) == text), None)
    stem = singular(text)
    same = same or next((name for name in every if singular(plainly(name)) == stem), None)
    return same or next((name for name in every if stem in words.get(name, ())), None)
