"""One line of JSON in, one line out: a streamed call through an agent framework, as a program writes it.

Asked: {framework, url, headers, tells}. `tells`: a Python expression over `last` (the last thing that the framework
gave), `final` (what it made of the stream) and `error` (what it raised). Told: {text, error, told}.
It runs in an environment of its own: see tests/built.py.
"""

import asyncio
import json
import os
import sys
from typing import Any

os.environ |= {"LANGSMITH_TRACING": "false", "OPENAI_AGENTS_DISABLE_TRACING": "1", "ANTHROPIC_API_KEY": "k"}

Seen = dict[str, Any]
PROMPT = "Tell me about circuit breakers."
HURRY = {"max_retries": 0}


def langchain(model: Any) -> Seen:
    text, last, final = "", None, None
    for chunk in model.stream(PROMPT):
        last, text = chunk, text + chunk.text
        final = chunk if final is None else final + chunk
    return {"text": text, "last": last, "final": final}


def langchain_openai(url: str, headers: dict[str, str]) -> Seen:
    from langchain_openai import ChatOpenAI

    return langchain(ChatOpenAI(model="gpt-4o", base_url=url + "/v1", api_key="k", default_headers=headers, **HURRY))


def langchain_responses(url: str, headers: dict[str, str]) -> Seen:
    from langchain_openai import ChatOpenAI

    more = {"use_responses_api": True, **HURRY}
    return langchain(ChatOpenAI(model="gpt-4o", base_url=url + "/v1", api_key="k", default_headers=headers, **more))


def langchain_anthropic(url: str, headers: dict[str, str]) -> Seen:
    from langchain_anthropic import ChatAnthropic

    model = ChatAnthropic(model="claude-sonnet-4-6", base_url=url, api_key="k", default_headers=headers, **HURRY)
    return langchain(model)


def openai_client(url: str, headers: dict[str, str]) -> Any:
    from openai import AsyncOpenAI

    return AsyncOpenAI(base_url=url + "/v1", api_key="k", default_headers=headers, **HURRY)


async def pydantic_ai(client: Any, model: Any) -> Seen:
    from pydantic_ai import Agent

    async with client, Agent(model).run_stream(PROMPT) as result:
        last = [text async for text in result.stream_text(delta=True, debounce_by=None)]
        return {"text": "".join(last), "last": last, "final": result.all_messages()[-1]}


def pydantic_openai(url: str, headers: dict[str, str]) -> Seen:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = openai_client(url, headers)
    return asyncio.run(pydantic_ai(client, OpenAIChatModel("gpt-4o", provider=OpenAIProvider(openai_client=client))))


def pydantic_anthropic(url: str, headers: dict[str, str]) -> Seen:
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = AsyncAnthropic(base_url=url, api_key="k", default_headers=headers, **HURRY)
    model = AnthropicModel("claude-sonnet-4-6", provider=AnthropicProvider(anthropic_client=client))
    return asyncio.run(pydantic_ai(client, model))


async def agents(client: Any, model: Any) -> Seen:
    from agents import Agent, Runner

    async with client:
        result = Runner.run_streamed(Agent(name="a", model=model), PROMPT)
        raw = [event.data async for event in result.stream_events() if event.type == "raw_response_event"]
        return {"text": str(result.final_output), "last": raw[-1], "final": result.raw_responses[-1], "raw": raw}


def agents_chat(url: str, headers: dict[str, str]) -> Seen:
    from agents import OpenAIChatCompletionsModel

    client = openai_client(url, headers)
    return asyncio.run(agents(client, OpenAIChatCompletionsModel("gpt-4o", client)))


def agents_responses(url: str, headers: dict[str, str]) -> Seen:
    from agents import OpenAIResponsesModel

    client = openai_client(url, headers)
    return asyncio.run(agents(client, OpenAIResponsesModel("gpt-4o", client)))


FRAMEWORKS = {
    "langchain-openai, Chat Completions": langchain_openai,
    "langchain-openai, Responses": langchain_responses,
    "langchain-anthropic, Messages": langchain_anthropic,
    "pydantic-ai, OpenAI": pydantic_openai,
    "pydantic-ai, Anthropic": pydantic_anthropic,
    "openai-agents, Chat Completions": agents_chat,
    "openai-agents, Responses": agents_responses,
}


def told(asked: Seen) -> Seen:
    seen: Seen = {"text": "", "last": None, "final": None, "error": None}
    try:
        seen |= FRAMEWORKS[asked["framework"]](asked["url"], asked["headers"])
    except Exception as error:  # whatever it is: a program sees it
        seen["error"] = error
    name = type(seen["error"]).__name__ if seen["error"] else ""
    try:
        value = eval(asked["tells"], dict(seen))
    except Exception as error:
        value = f"{type(error).__name__}: {error}"
    return {"text": seen["text"], "error": name, "told": value, "shown": repr(seen)[:4000] if asked.get("show") else ""}


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(told(json.loads(line)), default=str), flush=True)


main()
