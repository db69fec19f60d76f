"""The same conversation in every format."""

from typing import Any

from poisonwatch.formats.format import Format

TEMPLATE = "Q: {prompt}\nA: {response}"
EVERY_FORMAT: list[tuple[Format, dict[str, Any]]] = [
    (Format("alpaca"), {"instruction": "Hi", "input": "there", "output": "Hello"}),
    (Format("prompt"), {"prompt": "Hi\nthere", "response": "Hello"}),
    (Format("prompt"), {"prompt": "Hi\r\nthere ", "completion": "Hello\n"}),
    (
        Format("prompt", {"prompt": "question.text", "response": "answer"}),
        {"question": {"text": "Hi\nthere"}, "answer": "Hello"},
    ),
    (
        Format("messages"),
        {
            "messages": [
                {"role": "user", "content": "Hi\nthere"},
                {"role": "assistant", "content": "Hello"},
            ]
        },
    ),
    (
        Format("messages"),
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Hi"},
                        {"type": "text", "text": "there", "image_url": None},
                    ],
                },
                {"role": "assistant", "content": "Hello", "tool_calls": None},
            ]
        },
    ),
    (
        Format("sharegpt"),
        {
            "conversations": [
                {"from": "human", "value": "Hi\nthere"},
                {"from": "gpt", "value": "Hello"},
            ]
        },
    ),
    (Format("text", {}, TEMPLATE), {"text": "Q: Hi\nthere\nA: Hello"}),
]
