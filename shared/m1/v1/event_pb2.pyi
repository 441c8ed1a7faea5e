from google.protobuf import timestamp_pb2 as _timestamp_pb2
from m1.v1 import checkpoint_pb2 as _checkpoint_pb2
from m1.v1 import job_pb2 as _job_pb2
from m1.v1 import result_pb2 as _result_pb2
from m1.v1 import system_pb2 as _system_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EventKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_KIND_UNSPECIFIED: _ClassVar[EventKind]
    EVENT_KIND_STATE: _ClassVar[EventKind]
    EVENT_KIND_PROGRESS: _ClassVar[EventKind]
    EVENT_KIND_METRICS: _ClassVar[EventKind]
    EVENT_KIND_CHECKPOINT: _ClassVar[EventKind]
    EVENT_KIND_NOTICE: _ClassVar[EventKind]
    EVENT_KIND_STATS: _ClassVar[EventKind]
    EVENT_KIND_RESULT: _ClassVar[EventKind]

class Severity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEVERITY_UNSPECIFIED: _ClassVar[Severity]
    SEVERITY_INFO: _ClassVar[Severity]
    SEVERITY_WARNING: _ClassVar[Severity]
    SEVERITY_ERROR: _ClassVar[Severity]
EVENT_KIND_UNSPECIFIED: EventKind
EVENT_KIND_STATE: EventKind
EVENT_KIND_PROGRESS: EventKind
EVENT_KIND_METRICS: EventKind
EVENT_KIND_CHECKPOINT: EventKind
EVENT_KIND_NOTICE: EventKind
EVENT_KIND_STATS: EventKind
EVENT_KIND_RESULT: EventKind
SEVERITY_UNSPECIFIED: Severity
SEVERITY_INFO: Severity
SEVERITY_WARNING: Severity
SEVERITY_ERROR: Severity

class WatchRequest(_message.Message):
    __slots__ = ("from_revision", "store_id", "job", "kinds", "stats_interval_s")
    FROM_REVISION_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    STATS_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    from_revision: int
    store_id: str
    job: str
    kinds: _containers.RepeatedScalarFieldContainer[EventKind]
    stats_interval_s: float
    def __init__(self, from_revision: _Optional[int] = ..., store_id: _Optional[str] = ..., job: _Optional[str] = ..., kinds: _Optional[_Iterable[_Union[EventKind, str]]] = ..., stats_interval_s: _Optional[float] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("events", "stats", "lost", "cursor", "store_id", "job")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    stats: _system_pb2.SystemStats
    lost: LostRange
    cursor: int
    store_id: str
    job: _job_pb2.Job
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., stats: _Optional[_Union[_system_pb2.SystemStats, _Mapping]] = ..., lost: _Optional[_Union[LostRange, _Mapping]] = ..., cursor: _Optional[int] = ..., store_id: _Optional[str] = ..., job: _Optional[_Union[_job_pb2.Job, _Mapping]] = ...) -> None: ...

class LostRange(_message.Message):
    __slots__ = ("first_revision", "last_revision")
    FIRST_REVISION_FIELD_NUMBER: _ClassVar[int]
    LAST_REVISION_FIELD_NUMBER: _ClassVar[int]
    first_revision: int
    last_revision: int
    def __init__(self, first_revision: _Optional[int] = ..., last_revision: _Optional[int] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("revision", "time", "job_id", "state_changed", "progress_changed", "metrics_recorded", "checkpoint_created", "checkpoint_deleted", "notice_raised", "job_deleted", "result_stored")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_CHANGED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_CHANGED_FIELD_NUMBER: _ClassVar[int]
    METRICS_RECORDED_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_CREATED_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_DELETED_FIELD_NUMBER: _ClassVar[int]
    NOTICE_RAISED_FIELD_NUMBER: _ClassVar[int]
    JOB_DELETED_FIELD_NUMBER: _ClassVar[int]
    RESULT_STORED_FIELD_NUMBER: _ClassVar[int]
    revision: int
    time: _timestamp_pb2.Timestamp
    job_id: str
    state_changed: StateChanged
    progress_changed: ProgressChanged
    metrics_recorded: MetricsRecorded
    checkpoint_created: CheckpointCreated
    checkpoint_deleted: CheckpointDeleted
    notice_raised: NoticeRaised
    job_deleted: JobDeleted
    result_stored: ResultStored
    def __init__(self, revision: _Optional[int] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., job_id: _Optional[str] = ..., state_changed: _Optional[_Union[StateChanged, _Mapping]] = ..., progress_changed: _Optional[_Union[ProgressChanged, _Mapping]] = ..., metrics_recorded: _Optional[_Union[MetricsRecorded, _Mapping]] = ..., checkpoint_created: _Optional[_Union[CheckpointCreated, _Mapping]] = ..., checkpoint_deleted: _Optional[_Union[CheckpointDeleted, _Mapping]] = ..., notice_raised: _Optional[_Union[NoticeRaised, _Mapping]] = ..., job_deleted: _Optional[_Union[JobDeleted, _Mapping]] = ..., result_stored: _Optional[_Union[ResultStored, _Mapping]] = ...) -> None: ...

class StateChanged(_message.Message):
    __slots__ = ("to", "reason", "job")
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    to: _job_pb2.JobState
    reason: str
    job: _job_pb2.Job
    def __init__(self, to: _Optional[_Union[_job_pb2.JobState, str]] = ..., reason: _Optional[str] = ..., job: _Optional[_Union[_job_pb2.Job, _Mapping]] = ..., **kwargs) -> None: ...

class ProgressChanged(_message.Message):
    __slots__ = ("progress",)
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    progress: _job_pb2.Progress
    def __init__(self, progress: _Optional[_Union[_job_pb2.Progress, _Mapping]] = ...) -> None: ...

class MetricsRecorded(_message.Message):
    __slots__ = ("step", "epoch", "values", "of_step")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    OF_STEP_FIELD_NUMBER: _ClassVar[int]
    step: int
    epoch: int
    values: _containers.ScalarMap[str, float]
    of_step: bool
    def __init__(self, step: _Optional[int] = ..., epoch: _Optional[int] = ..., values: _Optional[_Mapping[str, float]] = ..., of_step: bool = ...) -> None: ...

class CheckpointCreated(_message.Message):
    __slots__ = ("checkpoint",)
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    checkpoint: _checkpoint_pb2.Checkpoint
    def __init__(self, checkpoint: _Optional[_Union[_checkpoint_pb2.Checkpoint, _Mapping]] = ...) -> None: ...

class CheckpointDeleted(_message.Message):
    __slots__ = ("checkpoint_id", "reason")
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    checkpoint_id: str
    reason: str
    def __init__(self, checkpoint_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class NoticeRaised(_message.Message):
    __slots__ = ("severity", "message")
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    severity: Severity
    message: str
    def __init__(self, severity: _Optional[_Union[Severity, str]] = ..., message: _Optional[str] = ...) -> None: ...

class JobDeleted(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResultStored(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: _result_pb2.Result
    def __init__(self, result: _Optional[_Union[_result_pb2.Result, _Mapping]] = ...) -> None: ...
