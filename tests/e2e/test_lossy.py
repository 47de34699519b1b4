"""Ten mebibytes each way through a relay that loses datagrams by a seeded plan: what arrives is what was sent."""

import hashlib

import pytest
from support import content
from support.curl import fetch

SIZE = 10 << 20


@pytest.mark.parametrize("relay", [0.01, 0.05], indirect=True, ids=["1%", "5%"])
class TestLossy:
    def test_down_with_curl(self, proxy, relay):
        response = fetch(proxy, f"/bytes/{SIZE}", port=relay.port, timeout=100)
        assert (response.error, response.status, response.length) == (None, 200, SIZE), str(relay)
        assert response.sha256 == content.sha256(SIZE), str(relay)
        assert relay.dropped > 0, str(relay)

    def test_up_with_curl(self, proxy, relay):
        response = fetch(proxy, "/inspect", method="POST", body=content.pieces(SIZE), length=SIZE, port=relay.port, timeout=100)
        assert (response.error, response.status) == (None, 200), str(relay)
        assert content.sha256(SIZE).encode() in response.body, str(relay)

    async def test_down_with_aioquic(self, proxy, relay, h3):
        async with h3(proxy, port=relay.port) as client:
            stream = await client.get(f"/bytes/{SIZE}?framing=chunked", seconds=100)
            assert (stream.status, stream.ended, stream.sha256) == (200, True, content.sha256(SIZE)), str(relay)

    async def test_both_ways_with_aioquic(self, proxy, relay, h3):
        body = content.body(SIZE // 4)
        async with h3(proxy, port=relay.port) as client:
            stream = await client.post("/echo", body, seconds=100)
            assert (stream.status, stream.ended) == (200, True), str(relay)
            assert stream.sha256 == hashlib.sha256(body).hexdigest(), str(relay)
