"""Which librdkafka settings are secret, and how to keep their values out of what people read."""

from collections.abc import Mapping

MASK = "********"

SECRET_WORDS = (
    "password",
    "passphrase",
    "secret",
    "token",
    "credential",
    "pem",
    "oauthbearer.config",
    "jaas",
    "kinit",
)
"""librdkafka settings whose name holds one of these carry a credential or a private key."""


def is_secret(key: str) -> bool:
    """Whether the value of this librdkafka setting must not be shown."""
    return any(word in key.lower() for word in SECRET_WORDS)


def without_secrets(text: str, client_config: Mapping[str, str]) -> str:
    """The text with the values of secret settings masked; librdkafka quotes some that it cannot parse.

    It may quote a part only, from some word on, so words of a value are masked like the whole; not those
    of less than four characters, which would mask half of the text.
    """
    values = [value for key, value in client_config.items() if value and is_secret(key)]
    words = [word for value in values for word in value.split() if len(word) >= 4]
    for secret in sorted({*values, *words}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text
