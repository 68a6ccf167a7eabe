"""Take a server's frames apart: they are unmasked and unfragmented (RFC 6455 §5.2)."""


def take_frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Return the first byte (FIN, reserved bits, opcode), the payload, and the bytes that follow.

    Return None if the frame is not whole yet.
    """
    if len(data) < 2:
        return None
    size, start = data[1], 2
    assert size < 128, "a server's frame is masked"
    if size == 126:
        size, start = int.from_bytes(data[2:4]), 4
    elif size == 127:
        size, start = int.from_bytes(data[2:10]), 10
    if len(data) < start + size:
        return None
    return data[0], data[start : start + size], data[start + size :]
