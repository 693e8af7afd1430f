"""What a language model's program does: python examples/mcp_client.py [http://127.0.0.1:7860]

Needs `pip install mcp` here and a page that was started with `--mcp` (and `gradio[mcp]`).
"""

import asyncio
import sys

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

URL = (sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860") + "/gradio_api/mcp/"


async def main() -> None:
    async with streamablehttp_client(URL) as (read, write, _), ClientSession(read, write) as session:
        await session.initialize()
        for tool in (await session.list_tools()).tools:
            print(f"{tool.name}: {tool.description.split('.')[0]}.")
        strokes = [[[60, 200], [120, 90], [200, 60], [300, 90], [360, 200]]]
        for name, arguments in (
            ("draw", {"category": "cat", "n": 1}),
            ("complete", {"strokes": strokes, "category": "cat", "n": 1}),
            ("draw", {"category": "unicorn"}),
        ):
            answer = await session.call_tool(name, arguments)
            print(name, "error" if answer.isError else "answer", answer.content[0].text[:120])


asyncio.run(main())
