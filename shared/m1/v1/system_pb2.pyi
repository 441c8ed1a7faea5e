from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetSystemInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetSystemInfoResponse(_message.Message):
    __slots__ = ("version", "pid", "home", "start_time", "uptime", "python_version", "torch_version", "platform", "store_id", "revision", "default_device", "default_threads", "environment", "fault")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    HOME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    PYTHON_VERSION_FIELD_NUMBER: _ClassVar[int]
    TORCH_VERSION_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    STORE_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_DEVICE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_THREADS_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    version: str
    pid: int
    home: str
    start_time: _timestamp_pb2.Timestamp
    uptime: _duration_pb2.Duration
    python_version: str
    torch_version: str
    platform: str
    store_id: str
    revision: int
    default_device: str
    default_threads: int
    environment: Environment
    fault: str
    def __init__(self, version: _Optional[str] = ..., pid: _Optional[int] = ..., home: _Optional[str] = ..., start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., uptime: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., python_version: _Optional[str] = ..., torch_version: _Optional[str] = ..., platform: _Optional[str] = ..., store_id: _Optional[str] = ..., revision: _Optional[int] = ..., default_device: _Optional[str] = ..., default_threads: _Optional[int] = ..., environment: _Optional[_Union[Environment, _Mapping]] = ..., fault: _Optional[str] = ...) -> None: ...

class Environment(_message.Message):
    __slots__ = ("passed", "set", "withheld", "withheld_deciding")
    PASSED_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    WITHHELD_FIELD_NUMBER: _ClassVar[int]
    WITHHELD_DECIDING_FIELD_NUMBER: _ClassVar[int]
    passed: _containers.RepeatedScalarFieldContainer[str]
    set: _containers.RepeatedScalarFieldContainer[str]
    withheld: _containers.RepeatedScalarFieldContainer[str]
    withheld_deciding: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, passed: _Optional[_Iterable[str]] = ..., set: _Optional[_Iterable[str]] = ..., withheld: _Optional[_Iterable[str]] = ..., withheld_deciding: _Optional[_Iterable[str]] = ...) -> None: ...

class GetTopologyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTopologyResponse(_message.Message):
    __slots__ = ("cpu", "core_kinds", "memory_bytes")
    CPU_FIELD_NUMBER: _ClassVar[int]
    CORE_KINDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    cpu: str
    core_kinds: _containers.RepeatedCompositeFieldContainer[CoreKind]
    memory_bytes: int
    def __init__(self, cpu: _Optional[str] = ..., core_kinds: _Optional[_Iterable[_Union[CoreKind, _Mapping]]] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class CoreKind(_message.Message):
    __slots__ = ("name", "physical_cores", "logical_cores")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PHYSICAL_CORES_FIELD_NUMBER: _ClassVar[int]
    LOGICAL_CORES_FIELD_NUMBER: _ClassVar[int]
    name: str
    physical_cores: int
    logical_cores: int
    def __init__(self, name: _Optional[str] = ..., physical_cores: _Optional[int] = ..., logical_cores: _Optional[int] = ...) -> None: ...

class GetSystemStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetSystemStatsResponse(_message.Message):
    __slots__ = ("stats",)
    STATS_FIELD_NUMBER: _ClassVar[int]
    stats: SystemStats
    def __init__(self, stats: _Optional[_Union[SystemStats, _Mapping]] = ...) -> None: ...

class SystemStats(_message.Message):
    __slots__ = ("time", "cpu_fraction", "core_fractions", "memory_total_bytes", "memory_available_bytes", "swap_used_bytes", "load_1min", "disk_free_bytes", "thermal_pressure", "on_battery", "battery_fraction", "training")
    TIME_FIELD_NUMBER: _ClassVar[int]
    CPU_FRACTION_FIELD_NUMBER: _ClassVar[int]
    CORE_FRACTIONS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SWAP_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOAD_1MIN_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    THERMAL_PRESSURE_FIELD_NUMBER: _ClassVar[int]
    ON_BATTERY_FIELD_NUMBER: _ClassVar[int]
    BATTERY_FRACTION_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    cpu_fraction: float
    core_fractions: _containers.RepeatedScalarFieldContainer[float]
    memory_total_bytes: int
    memory_available_bytes: int
    swap_used_bytes: int
    load_1min: float
    disk_free_bytes: int
    thermal_pressure: str
    on_battery: bool
    battery_fraction: float
    training: TrainingProcessStats
    def __init__(self, time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., cpu_fraction: _Optional[float] = ..., core_fractions: _Optional[_Iterable[float]] = ..., memory_total_bytes: _Optional[int] = ..., memory_available_bytes: _Optional[int] = ..., swap_used_bytes: _Optional[int] = ..., load_1min: _Optional[float] = ..., disk_free_bytes: _Optional[int] = ..., thermal_pressure: _Optional[str] = ..., on_battery: bool = ..., battery_fraction: _Optional[float] = ..., training: _Optional[_Union[TrainingProcessStats, _Mapping]] = ...) -> None: ...

class TrainingProcessStats(_message.Message):
    __slots__ = ("job_id", "pid", "cpu_cores", "memory_bytes", "threads")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    CPU_CORES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    pid: int
    cpu_cores: float
    memory_bytes: int
    threads: int
    def __init__(self, job_id: _Optional[str] = ..., pid: _Optional[int] = ..., cpu_cores: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., threads: _Optional[int] = ...) -> None: ...

class ShutdownRequest(_message.Message):
    __slots__ = ()
    YIELD_FIELD_NUMBER: _ClassVar[int]
    def __init__(self, **kwargs) -> None: ...

class ShutdownResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
