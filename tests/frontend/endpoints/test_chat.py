"""POST /v1/chat/completions against the fake engine, over real HTTP."""

import asyncio

from tests.helpers.http_serving import USER, http_serving


def test_a_stream_has_role_text_finish_and_done(chat_model: str) -> None:
    async def scenario() -> None:
        async with http_serving(chat_model) as server:
            events = await server.events("/v1/chat/completions", messages=[USER], max_tokens=12, seed=3)
            print(events)
            whole = await server.chat(max_tokens=12, seed=3)
            print(whole)

    asyncio.run(scenario())
