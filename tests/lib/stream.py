"""The records of a saved machine (man/godwit-stream.5), read independently of godwit."""
import collections
import struct
import zlib

HEAD = struct.Struct("<HHIQIIQ")  # type, flags, crc, sequence, body, padding, data
NAMES = {1: "HELLO", 2: "MACHINE", 3: "PAGES", 4: "STATES", 5: "END"}

# As much of a saved machine as says what it is: the head of HELLO, its magic.
BEGIN = HEAD.pack(1, 0, 0, 0, 64, 0, 0) + b"GODWIT\r\n" + bytes(56)

Record = collections.namedtuple("Record", "name offset sequence body padding data end")
Part = collections.namedtuple("Part", "offset size")


def records(content):
    found, at = [], 0
    while at < len(content):
        kind, _, _, sequence, body, padding, data = HEAD.unpack_from(content, at)
        start = at + HEAD.size
        end = start + body + padding + data
        found.append(Record(NAMES.get(kind, str(kind)), at, sequence, Part(start, body), padding,
                            Part(end - data, data), end))
        at = end
    return found


def with_body(content, record, body):
    """The content with another body of the same size in this record, its checksum right."""
    assert len(body) == record.body.size
    head = bytearray(content[record.offset:record.offset + HEAD.size])
    head[4:8] = bytes(4)
    struct.pack_into("<I", head, 4, zlib.crc32(body, zlib.crc32(bytes(head))))
    return content[:record.offset] + bytes(head) + body + content[record.body.offset + len(body):]
