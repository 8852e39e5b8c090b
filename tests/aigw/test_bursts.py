"""How many streamed answers come through whole where they arrive in one burst: `POLICYD_AIGW_BURSTS=400` asks so often.

Envoy 1.38 loses some where two external processors stand in one chain (envoyproxy/envoy#41654). Which is why
docs/ai-gateway.md gives numbers; in front of the gateway there is one processor in each Envoy, and none is lost.
"""

from __future__ import annotations

import os

import pytest

from tests.aigw import gateway, places
from tests.aigw.places import Place, Standing
from tests.aigw.test_places import PLAIN, SAID, text
from tests.envoy.harness import VERSIONS

TIMES = int(os.environ.get("POLICYD_AIGW_BURSTS") or 0)  # read before settings from outside are hidden from tests
NEWEST = VERSIONS[-1]

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not TIMES, reason="POLICYD_AIGW_BURSTS=N asks so many times"),
]


def lost(place: Place, team: str) -> int:
    """How many of so many streamed answers are not whole."""
    said = [text(PLAIN, PLAIN.ask(place, team, stream=True, interval_ms=0), True) for _ in range(TIMES)]
    count = sum(one != SAID for one in said)
    print(f"{place.stand}, {'read' if team else 'not read'}: {count} of {TIMES} lost")
    return count


each_envoy = pytest.mark.parametrize("envoy", [gateway.ENVOY, NEWEST])


@each_envoy
def test_in_front_and_behind(standing: Standing, envoy: str) -> None:
    standing.close()
    with places.two_routes(envoy) as (front, behind):
        assert lost(front, "read") == 0
        assert lost(behind, "") == 0
        seen = lost(behind, "read")
        assert envoy != NEWEST or seen == 0


@each_envoy
def test_ahead(standing: Standing, envoy: str) -> None:
    """On a new Envoy none is lost where policyd reads the answer."""
    standing.close()
    with places.ahead(envoy) as place:
        lost(place, "")
        seen = lost(place, "read")
        assert envoy != NEWEST or seen == 0
