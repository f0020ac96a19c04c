"""Records on the wire, field by field."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, Struct
from google.protobuf.timestamp_pb2 import Timestamp
from orginabox.audit.v1 import audit_service_pb2 as pb
from orginabox.audit.v1 import checkpoint_pb2, damage_pb2, export_pb2, record_pb2

from services.audit.damage import Damage
from services.audit.exporting import Form
from services.audit.record import Filter, Record, RecordInvalid, now


def record_from_proto(record: record_pb2.Record) -> Record:
    """A record as it was sent.

    Raises:
        RecordInvalid: An id in it is none, or a time cannot be.
    """
    return Record(
        tenant_id=_uuid(record.tenant_id, "tenant_id"),
        record_id=_uuid(record.record_id, "record_id"),
        user_id=_uuid(record.user_id, "user_id") if record.user_id else None,
        actor=record.actor,
        action=record.action,
        target=record.target,
        session_id=record.session_id,
        channel=record.channel,
        ip_address=record.ip_address,
        user_agent=record.user_agent,
        duration=record.duration.ToTimedelta() if record.HasField("duration") else None,
        payload=_payload(record.payload),
        create_time=_time(record.create_time, "create_time") if record.HasField("create_time") else now(),
    )


def record_to_proto(record: Record) -> record_pb2.Record:
    """A record as it is kept."""
    payload = Struct()
    payload.update(dict(record.payload or {}))
    return record_pb2.Record(
        record_id=str(record.record_id),
        sequence=record.sequence,
        tenant_id=str(record.tenant_id),
        user_id=str(record.user_id or ""),
        actor=record.actor,
        action=record.action,
        target=record.target,
        session_id=record.session_id,
        channel=record.channel,
        ip_address=record.ip_address,
        user_agent=record.user_agent,
        duration=_duration(record.duration),
        payload=payload,
        create_time=_stamp(record.create_time),
        erased=record.erased,
        hash=record.hash,
    )


def damage_to_proto(damage: Damage) -> damage_pb2.Damage:
    """A damage as it was found."""
    return damage_pb2.Damage(
        kind=damage_pb2.DamageKind.Value(f"DAMAGE_KIND_{damage.kind.name}"),
        sequence=damage.sequence,
        message=damage.told,
        tenant_id=str(damage.tenant_id or ""),
    )


def checkpoint_to_proto(size: int, note: str, time: datetime) -> checkpoint_pb2.Checkpoint:
    """A checkpoint as the database has it."""
    return checkpoint_pb2.Checkpoint(size=size, note=note, create_time=_stamp(time))


def form_from_proto(form: export_pb2.ExportFormat.ValueType) -> Form:
    """In which form to write out."""
    match form:
        case export_pb2.EXPORT_FORMAT_OCSF:
            return Form.OCSF
        case export_pb2.EXPORT_FORMAT_CHAIN:
            return Form.CHAIN
        case _:
            return Form.CSV


def filter_from_proto(request: pb.ListRecordsRequest | pb.ExportRecordsRequest) -> Filter:
    """Which records are asked for."""
    return Filter(
        tenant_id=UUID(request.tenant_id),
        action=request.action,
        user_id=UUID(request.user_id) if request.user_id else None,
        since=_time(request.since, "since") if request.HasField("since") else None,
        until=_time(request.until, "until") if request.HasField("until") else None,
    )


def _payload(payload: Struct) -> dict[str, object]:
    return {name: _plain(value) for name, value in payload.items()}


def _plain(value: object) -> object:
    """A value of a Struct as Python has it."""
    match value:
        case Struct():
            return _payload(value)
        case ListValue():
            return [_plain(inner) for inner in value]
        case _:
            return value


def _uuid(text: str, field: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise RecordInvalid(f"{field}: a record names it by a UUID", field=f"records.{field}") from None


def _time(stamp: Timestamp, field: str) -> datetime:
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise RecordInvalid(f"{field}: there is no such time", field=field) from None


def _stamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def _duration(duration: timedelta | None) -> Duration | None:
    if duration is None:
        return None
    found = Duration()
    found.FromTimedelta(duration)
    return found
