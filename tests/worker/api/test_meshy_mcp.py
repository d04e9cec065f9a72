"""Meshy's own MCP server, unchanged and pointed here, makes a model and downloads it.

Needs `npm ci --prefix tests/meshy_mcp` (make setup does it).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.worker.api.conftest import MakeWorld, World, serving_world

SERVER = (
    Path(__file__).resolve().parents[2] / "meshy_mcp/node_modules/@meshy-ai/meshy-mcp-server/dist/index.js"
)


class McpClient:
    """Speaks JSON-RPC over the server's pipes, one line a message."""

    def __init__(self, host: str, key: str, folder: Path) -> None:
        environment = {**os.environ, "MESHY_API_KEY": key, "MESHY_API_HOST": host}
        self.process = subprocess.Popen(
            ["node", str(SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sys.stderr,
            cwd=folder,
            env=environment,
            text=True,
        )
        self._number = 0
        self.ask(
            "initialize",
            protocolVersion="2025-06-18",
            capabilities={},
            clientInfo={"name": "maquette-tests", "version": "1"},
        )
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        self._send({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            message = json.loads(line)
            if message.get("id") == self._number:
                assert "error" not in message, message
                answer: dict[str, Any] = message["result"]
                return answer
        raise AssertionError("the MCP server ended")

    def call(self, tool: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
        """Text and structured content of a tool's answer, which is no error."""
        result = self.ask("tools/call", name=tool, arguments=arguments)
        text = "\n".join(part.get("text", "") for part in result["content"])
        assert not result.get("isError"), text
        return text, result.get("structuredContent") or {}

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.mark.slow
def test_meshys_mcp_server_makes_and_downloads_a_model(make_world: MakeWorld, tmp_path: Path):
    assert SERVER.is_file(), "run: npm ci --prefix tests/meshy_mcp"
    world = make_world(keys="required")
    with serving_world(world) as host:
        drive(world, host, tmp_path)


def drive(world: World, host: str, tmp_path: Path) -> None:
    client = McpClient(host, world.key(), tmp_path)
    try:
        _, made = client.call("meshy_text_to_3d", prompt="a red barrel", ai_model="latest")
        task_id = made["task_id"]
        text, status = client.call("meshy_get_task_status", task_id=task_id, timeout_seconds=60)
        assert status["status"] == "SUCCEEDED", text
        assert set(status["model_urls"]) == {"glb"}
        target = tmp_path / "barrel.glb"
        client.call("meshy_download_model", task_id=task_id, format="glb", save_to=str(target))
        assert target.read_bytes().startswith(b"glb of a red barrel")
        text, _ = client.call("meshy_list_tasks")
        assert task_id in text
        client.call("meshy_check_balance")
        _, refined = client.call("meshy_text_to_3d_refine", preview_task_id=task_id, ai_model="latest")
        _, status = client.call("meshy_get_task_status", task_id=refined["task_id"], timeout_seconds=60)
        assert status["status"] == "SUCCEEDED"
    finally:
        client.close()
