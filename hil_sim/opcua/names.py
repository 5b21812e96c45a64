"""Namespaces and types of the companion specifications, as far as the simulated machines have instances of them.

Numbers and names follow the published node sets: DI 1.05, IA 1.01, Machinery 1.04, ISA95-JOBCONTROL_V2 2.0,
Machinery/Jobs 1.0, MachineTool 1.02, Robotics 1.02. A type here has its name, its supertype and its states; the
instances carry what the types prescribe.
"""

from __future__ import annotations

from typing import NamedTuple

BASE_URI = "http://opcfoundation.org/UA/"

URIS = {
    "di": f"{BASE_URI}DI/",
    "ia": f"{BASE_URI}IA/",
    "machinery": f"{BASE_URI}Machinery/",
    "isa95": f"{BASE_URI}ISA95-JOBCONTROL_V2/",
    "jobs": f"{BASE_URI}Machinery/Jobs/",
    "mt": f"{BASE_URI}MachineTool/",
    "rob": f"{BASE_URI}Robotics/",
}
"""Short names as used in this package; a node's index is the server's business."""


class ObjectType(NamedTuple):
    """One object type; `states` are (number of the state's node, name, StateNumber)."""

    node: str
    name: str
    supertype: str
    states: tuple[tuple[int, str, int], ...] = ()


COMMON_TYPES = (
    ObjectType("di:1005", "FunctionalGroupType", "61"),
    ObjectType("di:1001", "TopologyElementType", "58"),
    ObjectType("di:15063", "ComponentType", "di:1001"),
)

CNC_TYPES = (
    *COMMON_TYPES,
    ObjectType("machinery:1012", "MachineIdentificationType", "di:1005"),
    ObjectType(
        "machinery:1002",
        "MachineryItemState_StateMachineType",
        "2771",
        ((5005, "NotAvailable", 0), (5004, "OutOfService", 1), (5007, "NotExecuting", 2), (5006, "Executing", 3)),
    ),
    ObjectType(
        "machinery:1008",
        "MachineryOperationModeStateMachineType",
        "2771",
        ((5024, "None", 0), (5025, "Maintenance", 1), (5027, "Setup", 2), (5026, "Processing", 3)),
    ),
    ObjectType(
        "isa95:1002",
        "ISA95JobOrderReceiverObjectType",
        "2771",
        (
            (5035, "NotAllowedToStart", 1),
            (5036, "AllowedToStart", 2),
            (5037, "Running", 3),
            (5038, "Interrupted", 4),
            (5039, "Ended", 5),
            (5040, "Aborted", 6),
        ),
    ),
    ObjectType("isa95:1003", "ISA95JobResponseProviderObjectType", "58"),
    ObjectType("isa95:1006", "ISA95JobOrderStatusEventType", "2041"),
    ObjectType("jobs:1003", "JobManagementType", "58"),
    ObjectType("mt:11", "MachineToolIdentificationType", "machinery:1012"),
    ObjectType("mt:12", "EquipmentType", "58"),
    ObjectType("mt:13", "MachineToolType", "58"),
    ObjectType("mt:14", "MonitoringType", "58"),
    ObjectType("mt:23", "ElementMonitoringType", "58"),
    ObjectType("mt:41", "WorkingUnitMonitoringType", "mt:23"),
    ObjectType("mt:16", "ChannelMonitoringType", "mt:23"),
    ObjectType("mt:22", "SpindleMonitoringType", "mt:41"),
    ObjectType("mt:26", "MachineOperationMonitoringType", "58"),
    ObjectType("mt:33", "ChannelModifierType", "58"),
    ObjectType("mt:21", "ProductionType", "58"),
    ObjectType("mt:59", "ProductionProgramType", "58"),
    ObjectType("mt:32", "ProductionActiveProgramType", "mt:59"),
    ObjectType(
        "mt:24",
        "ProductionStateMachineType",
        "2771",
        (
            (135, "Initializing", 0),
            (138, "Running", 1),
            (140, "Ended", 2),
            (139, "Interrupted", 3),
            (141, "Aborted", 4),
        ),
    ),
    ObjectType("mt:15", "ProductionProgramStateMachineType", "mt:24"),
    ObjectType("mt:7", "NotificationType", "58"),
    ObjectType("mt:38", "MessagesType", "58"),
    ObjectType("mt:39", "AlertType", "2915"),
    ObjectType("mt:44", "ToolListType", "58"),
    ObjectType("mt:49", "BaseToolType", "58"),
    ObjectType("mt:50", "ToolType", "mt:49"),
)

ROBOT_TYPES = (
    *COMMON_TYPES,
    ObjectType("rob:1002", "MotionDeviceSystemType", "di:15063"),
    ObjectType("rob:1003", "ControllerType", "di:15063"),
    ObjectType("rob:1004", "MotionDeviceType", "di:15063"),
    ObjectType("rob:16601", "AxisType", "di:15063"),
    ObjectType("rob:1011", "TaskControlType", "di:15063"),
    ObjectType("rob:1013", "SafetyStateType", "di:15063"),
    ObjectType("rob:1018", "LoadType", "58"),
    ObjectType("rob:18175", "UserType", "58"),
    ObjectType("rob:17230", "EmergencyStopFunctionType", "58"),
    ObjectType("rob:17233", "ProtectiveStopFunctionType", "58"),
)

OPERATION_TYPES = (
    ObjectType(
        "rob:1006",
        "OperationStateMachineType",
        "2771",
        ((5005, "Idle", 1), (5006, "Ready", 2), (5007, "Executing", 3)),
    ),
    ObjectType("rob:1021", "SystemOperationStateMachineType", "rob:1006"),
    ObjectType("rob:1025", "TaskControlStateMachineType", "rob:1006"),
    ObjectType("rob:1007", "ExecutingSubstateMachineType", "2771", ((5020, "Running", 1), (5021, "Stopping", 2))),
    ObjectType("rob:1009", "IdleSubstateMachineType", "2771", ((5015, "StandBy", 1), (5017, "GettingReady", 2))),
    ObjectType("rob:1012", "ReadySubstateMachineType", "2771", ((5023, "AtProgramStart", 1), (5024, "Suspended", 2))),
    ObjectType("rob:1028", "SystemOperationType", "58"),
    ObjectType("rob:1008", "TaskControlOperationType", "58"),
)
"""New in Robotics 1.02; a robot with 1.01 has none of it."""

ENUMERATIONS = {
    "mt:65": (
        "MachineOperationMode",
        ("Manual", "Automatic", "Setup", "AutoWithManualIntervention", "Service", "Other"),
    ),
    "mt:64": ("ChannelState", ("Active", "Interrupted", "Reset")),
    "mt:67": ("ChannelMode", ("Automatic", "MdaMdi", "JogManual", "JogIncrement", "TeachInHandle", "Other")),
    "mt:66": ("ToolLocked", ("ByOperator", "ToolBroken", "ToolLife", "MeasurementError", "Other")),
    "mt:68": ("ToolLifeIndication", ("Time", "NumberOfParts", "NumberOfUsages", "Feed_Distance", "Wear", "Other")),
    "mt:69": ("ToolManagement", ("NumberBased", "GroupBased", "Other")),
    "rob:3006": (
        "OperationalModeEnumeration",
        ("OTHER", "MANUAL_REDUCED_SPEED", "MANUAL_HIGH_SPEED", "AUTOMATIC", "AUTOMATIC_EXTERNAL"),
    ),
    "rob:18191": ("ExecutionModeEnumeration", ("CYCLE", "CONTINUOUS", "STEP")),
    "rob:18193": (
        "MotionDeviceCategoryEnumeration",
        (
            "OTHER",
            "ARTICULATED_ROBOT",
            "SCARA_ROBOT",
            "CARTESIAN_ROBOT",
            "SPHERICAL_ROBOT",
            "PARALLEL_ROBOT",
            "CYLINDRICAL_ROBOT",
        ),
    ),
    "rob:3008": (
        "AxisMotionProfileEnumeration",
        ("OTHER", "ROTARY", "ROTARY_ENDLESS", "LINEAR", "LINEAR_ENDLESS"),
    ),
}
"""Data type node: name, and the names of its values from 0."""


class Field(NamedTuple):
    """One field of a structure; `type` is a node like `isa95:3006` or `12`."""

    name: str
    type: str
    array: bool = False
    optional: bool = False


class Structure(NamedTuple):
    """One structure: its node, the node of its binary encoding, its fields in order."""

    node: str
    encoding: str
    name: str
    fields: tuple[Field, ...]


_STRING, _TIME, _INT16, _UINT32, _TEXT, _ANY = "12", "294", "4", "7", "21", "24"
_UNITS = Field("EngineeringUnits", "887", optional=True)
_TEXTS = Field("Description", _TEXT, array=True, optional=True)
_QUANTITY = Field("Quantity", _STRING, optional=True)  # DecimalString, a String on the wire
_PROPERTIES = Field("Properties", "isa95:3002", array=True, optional=True)


def _resource(node: str, encoding: str, name: str, use: str) -> Structure:
    fields = (Field("ID", _STRING), _TEXTS, Field(use, _STRING, optional=True), _QUANTITY, _UNITS, _PROPERTIES)
    return Structure(node, encoding, name, fields)


def _value(node: str, encoding: str, name: str, below: str) -> Structure:
    fields = (
        Field("ID", _STRING),
        Field("Value", _ANY),
        _TEXTS,
        _UNITS,
        Field(below, node, array=True, optional=True),
    )
    return Structure(node, encoding, name, fields)


def _resources(suffix: str) -> tuple[Field, ...]:
    kinds = (("Personnel", 3011), ("Equipment", 3005), ("PhysicalAsset", 3012), ("Material", 3010))
    return tuple(Field(f"{kind}{suffix}", f"isa95:{node}", array=True, optional=True) for kind, node in kinds)


STRUCTURES = (
    _value("isa95:3002", "isa95:5002", "ISA95PropertyDataType", "Subproperties"),
    _value("isa95:3003", "isa95:5005", "ISA95ParameterDataType", "Subparameters"),
    _resource("isa95:3005", "isa95:5008", "ISA95EquipmentDataType", "EquipmentUse"),
    _resource("isa95:3011", "isa95:5020", "ISA95PersonnelDataType", "PersonnelUse"),
    _resource("isa95:3012", "isa95:5023", "ISA95PhysicalAssetDataType", "PhysicalAssetUse"),
    Structure(
        "isa95:3010",
        "isa95:5017",
        "ISA95MaterialDataType",
        (
            Field("MaterialClassID", _STRING, optional=True),
            Field("MaterialDefinitionID", _STRING, optional=True),
            Field("MaterialLotID", _STRING, optional=True),
            Field("MaterialSublotID", _STRING, optional=True),
            _TEXTS,
            Field("MaterialUse", _STRING, optional=True),
            _QUANTITY,
            _UNITS,
            _PROPERTIES,
        ),
    ),
    Structure(
        "isa95:3006",
        "isa95:5029",
        "ISA95StateDataType",
        (Field("BrowsePath", "540"), Field("StateText", _TEXT), Field("StateNumber", _UINT32)),
    ),
    Structure(
        "isa95:3007",
        "isa95:5011",
        "ISA95WorkMasterDataType",
        (
            Field("ID", _STRING),
            Field("Description", _TEXT, optional=True),
            Field("Parameters", "isa95:3003", array=True, optional=True),
        ),
    ),
    Structure(
        "isa95:3008",
        "isa95:5014",
        "ISA95JobOrderDataType",
        (
            Field("JobOrderID", _STRING),
            _TEXTS,
            Field("WorkMasterID", "isa95:3007", array=True, optional=True),
            Field("StartTime", _TIME, optional=True),
            Field("EndTime", _TIME, optional=True),
            Field("Priority", _INT16, optional=True),
            Field("JobOrderParameters", "isa95:3003", array=True, optional=True),
            *_resources("Requirements"),
        ),
    ),
    Structure(
        "isa95:3013",
        "isa95:5026",
        "ISA95JobResponseDataType",
        (
            Field("JobResponseID", _STRING),
            Field("Description", _TEXT, optional=True),
            Field("JobOrderID", _STRING),
            Field("StartTime", _TIME, optional=True),
            Field("EndTime", _TIME, optional=True),
            Field("JobState", "isa95:3006", array=True),
            Field("JobResponseData", "isa95:3003", array=True, optional=True),
            *_resources("Actuals"),
        ),
    ),
    Structure(
        "isa95:3015",
        "isa95:5032",
        "ISA95JobOrderAndStateDataType",
        (Field("JobOrder", "isa95:3008"), Field("State", "isa95:3006", array=True)),
    ),
)
"""In an order in which each only needs those before it (or itself)."""
