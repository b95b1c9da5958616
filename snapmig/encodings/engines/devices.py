"""
Find compression accelerators, Intel IAA and Intel QAT, as shown by the kernel.

Only sysfs and ``/dev`` are read, below a configurable root. No process is started and no device
opened, so a search takes milliseconds and disturbs nobody.

For IAA see the kernel's ``Documentation/ABI/stable/sysfs-driver-dma-idxd`` and
``Documentation/driver-api/crypto/iaa/iaa-crypto.rst``, and for its set-up the manual pages of
accel-config; for QAT ``Documentation/ABI/testing/sysfs-driver-qat`` and ``INSTALL`` of qatlib.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ("DeviceReport", "find_iaa", "find_qat")

_INTEL = "0x8086"
_IAA_IDS = {"0x0cfe", "0x1216"}  # PCI_DEVICE_ID_INTEL_IAX_SPR0, .._IAA_DMR

# Kernel module by PCI device id, from the tables of the drivers in drivers/crypto/intel/qat and,
# for d15xx, c4xxx and 200xx, from Intel's out-of-tree driver.
_QAT_PHYSICAL = {
    "0x4940": "qat_4xxx",
    "0x4942": "qat_4xxx",
    "0x4944": "qat_4xxx",
    "0x4946": "qat_420xx",
    "0x4948": "qat_6xxx",
}
_QAT_VIRTUAL = {"0x4941", "0x4943", "0x4945", "0x4947", "0x4949"}
_QAT_OLD = {
    *("0x0435", "0x0443"),  # dh895xcc and its virtual functions
    *("0x37c8", "0x37c9"),  # c6xx
    *("0x19e2", "0x19e3"),  # c3xxx
    *("0x6f54", "0x6f55"),  # d15xx
    *("0x18ee", "0x18ef"),  # 200xx
    *("0x18a0", "0x18a1"),  # c4xxx
}
_QAT_NODES = ("dev/qat_adf_ctl", "dev/usdm_drv")  # the second one is the out-of-tree driver's
_QAT_GROUP = "sudo usermod -a -G qat $USER  # and log in again"
_QAT_SERVICE = "sudo systemctl enable --now qat"


class DeviceReport(NamedTuple):
    """
    The devices of a kind available to this process.

    :param devices: paths of their nodes, empty if there is a problem
    :param problem: the reason why none can be used, None if one can
    :param remedy: a command or a kernel parameter to fix it, if there is one
    """

    devices: tuple[str, ...]
    problem: str | None
    remedy: str | None


class _Finding(NamedTuple):
    """The problem of one device. Of several, the one closest to working is reported."""

    rank: int
    problem: str
    remedy: str | None = None


def find_iaa(root: Path = Path("/")) -> DeviceReport:
    """
    Find work queues of Intel's In-Memory Analytics Accelerator usable by programs.

    They must be enabled, of type ``user`` and of mode ``shared``: several processes submit to them,
    and Intel's Query Processing Library accepts no others.
    """
    accelerators = _numbered(root / "sys/bus/dsa/devices", r"iax\d+")
    if not accelerators:
        if _pci_devices(root, _IAA_IDS):
            problem = "an Intel IAA device is there, but no driver for it"
            return DeviceReport((), problem, "sudo modprobe idxd")
        return DeviceReport((), "no Intel IAA device was found", None)
    return _report(finding for device in accelerators for finding in _iaa_findings(root, device))


def find_qat(root: Path = Path("/")) -> DeviceReport:
    """
    Find QuickAssist devices usable by programs.

    With the kernel's drivers a program uses virtual functions through vfio, with Intel's
    out-of-tree driver the nodes ``/dev/qat_adf_ctl`` and ``/dev/usdm_drv``. Devices older than the
    fourth generation have only the latter: the kernel keeps them from vfio.
    """
    if not _pci_devices(root, {*_QAT_PHYSICAL, *_QAT_VIRTUAL, *_QAT_OLD}):
        return DeviceReport((), "no Intel QAT device was found", None)
    if all(_there(root / node) for node in _QAT_NODES):
        return _report([_qat_nodes(root, _QAT_NODES)])
    virtual = _pci_devices(root, _QAT_VIRTUAL)
    if virtual:
        return _report(_qat_virtual(root, device) for device in virtual)
    physical = _pci_devices(root, _QAT_PHYSICAL)
    if physical:
        return _report(_qat_physical(device) for device in physical)
    problem = "this Intel QAT device needs Intel's out-of-tree driver, which is not loaded"
    return DeviceReport((), problem, None)


def _iaa_findings(root: Path, device: Path) -> Iterator[str | _Finding]:
    name = device.name
    if _text(device / "pasid_enabled") == "0":
        problem = f"Intel IAA device {name} can't reach the memory of processes (no PASID)"
        yield _Finding(0, problem, "boot with the kernel parameters intel_iommu=on,sm_on")
        return
    queues = _numbered(device, r"wq\d+\.\d+")
    good = [queue for queue in queues if _kind(queue) == ("user", "shared")]
    enabled = [queue for queue in good if _text(queue / "state") == "enabled"]
    state = _text(device / "state") or "in an unknown state"
    if state != "enabled":
        enable = f"sudo accel-config enable-device {name}"
        remedy = f"{enable} && {_enable(device, good[0])}" if good else _configure(device, queues)
        yield _Finding(1, f"Intel IAA device {name} is {state}", remedy)
    elif enabled:
        yield from (_iaa_node(root, queue) for queue in enabled)
    elif good:
        problem = f"work queue {good[0].name} of Intel IAA device {name} is not enabled"
        yield _Finding(3, problem, _enable(device, good[0]))
    else:
        problem = f"Intel IAA device {name} has no work queue of type user and mode shared"
        remedy = f"sudo accel-config disable-device {name} && {_configure(device, queues)}"
        yield _Finding(2, problem + _others(queues), remedy)


def _iaa_node(root: Path, queue: Path) -> str | _Finding:
    path = f"/dev/iax/{queue.name}"
    node = root / path[1:]
    if not _there(node):
        return _Finding(4, f"{path} is not there, though the work queue is enabled")
    if not _permitted(node):
        return _Finding(5, f"no permission to use {path}", f"sudo chown $USER {path}")
    return path


def _others(queues: Iterable[Path]) -> str:
    """Return the uses of the work queues in use, in words."""
    used = [queue for queue in queues if _text(queue / "state") == "enabled"]
    words = [f"{queue.name} is {' and '.join(_kind(queue))}" for queue in used]
    return f" ({', '.join(words)})" if words else ""


def _kind(queue: Path) -> tuple[str, str]:
    return _text(queue / "type"), _text(queue / "mode")


def _configure(device: Path, queues: list[Path]) -> str:
    """Return the command to give a whole disabled device to one work queue."""
    queue = queues[0].name if queues else f"wq{device.name[3:]}.0"
    size = _text(device / "max_work_queues_size") or "128"
    engines = _numbered(device, r"engine\d+\.\d+")
    steps = [f"config-engine {device.name}/{engine.name} --group-id=0" for engine in engines]
    steps += [
        f"config-wq {device.name}/{queue} --group-id=0 --type=user --mode=shared"
        f" --wq-size={size} --threshold={size} --priority=10 --block-on-fault=1"
        " --name=snapmig --driver-name=user",
        f"enable-device {device.name}",
        f"enable-wq {device.name}/{queue}",
    ]
    return " && ".join(f"sudo accel-config {step}" for step in steps)


def _enable(device: Path, queue: Path) -> str:
    return f"sudo accel-config enable-wq {device.name}/{queue.name}"


def _qat_physical(device: Path) -> _Finding:
    """Return the reason why a physical function has no virtual one."""
    if not _there(device / "driver"):
        module = _QAT_PHYSICAL[_text(device / "device")]
        problem = f"Intel QAT device {device.name} has no driver"
        return _Finding(0, problem, f"sudo modprobe {module}")
    wrong = _qat_service(device)
    if wrong is not None:
        return wrong
    return _Finding(3, f"Intel QAT device {device.name} has no virtual functions", _QAT_SERVICE)


def _qat_virtual(root: Path, device: Path) -> str | _Finding:
    physical = device / "physfn"  # missing in a virtual machine with a passed-through function
    wrong = _qat_service(physical.resolve()) if _there(physical) else None
    if wrong is not None:
        return wrong
    if not _there(device / "iommu_group"):
        problem = f"Intel QAT function {device.name} is in no IOMMU group"
        return _Finding(4, problem, "boot with the kernel parameter intel_iommu=on")
    if not _there(device / "driver") or (device / "driver").resolve().name != "vfio-pci":
        problem = f"Intel QAT function {device.name} is not bound to vfio-pci"
        return _Finding(5, problem, _QAT_SERVICE)
    group = (device / "iommu_group").resolve().name
    node = f"dev/vfio/{group}"
    bare = f"dev/vfio/noiommu-{group}"  # its name in vfio without an IOMMU
    return _qat_nodes(root, (bare if _there(root / bare) else node, "dev/vfio/vfio"))


def _qat_service(physical: Path) -> _Finding | None:
    """Return the reason why a physical function does not compress; the kernel can't always tell."""
    state, services = _text(physical / "qat/state"), _text(physical / "qat/cfg_services")
    path = f"/sys/bus/pci/devices/{physical.name}/qat"
    if state == "down":
        problem = f"Intel QAT device {physical.name} is down"
        return _Finding(1, problem, f"echo up | sudo tee {path}/state")
    if services and not {"dc", "dcc"} & set(services.split(";")):
        problem = f"Intel QAT device {physical.name} is set up for {services}, not for compression"
        words = (("down", "state"), ("dc", "cfg_services"), ("up", "state"))
        remedy = " && ".join(f"echo {word} | sudo tee {path}/{name}" for word, name in words)
        return _Finding(2, problem, remedy)
    return None


def _qat_nodes(root: Path, nodes: Iterable[str]) -> str | _Finding:
    """Check all nodes needed by a device, and return the one for the device itself."""
    nodes = tuple(nodes)
    for node in nodes:
        if not _there(root / node):
            return _Finding(6, f"/{node} is not there, though the device has its driver")
    for node in nodes:
        if not _permitted(root / node):
            return _Finding(7, f"no permission to use /{node}", _QAT_GROUP)
    return f"/{nodes[0]}"


def _report(findings: Iterable[str | _Finding]) -> DeviceReport:
    devices: list[str] = []
    wrong: list[_Finding] = []
    for finding in findings:
        if isinstance(finding, str):
            devices.append(finding)
        else:
            wrong.append(finding)
    if devices:
        return DeviceReport(tuple(devices), None, None)
    nearest = max(wrong, key=lambda finding: finding.rank)
    return DeviceReport((), nearest.problem, nearest.remedy)


def _pci_devices(root: Path, ids: Collection[str]) -> list[Path]:
    return [
        device
        for device in _numbered(root / "sys/bus/pci/devices", r"[0-9a-f:.]+")
        if _text(device / "vendor") == _INTEL and _text(device / "device") in ids
    ]


def _numbered(directory: Path, pattern: str) -> list[Path]:
    """Return the entries with matching names, sorted by the numbers in them."""
    try:
        found = [path for path in directory.iterdir() if re.fullmatch(pattern, path.name)]
    except OSError:
        return []
    return sorted(found, key=lambda path: [int(n, 16) for n in re.findall("[0-9a-f]+", path.name)])


def _text(path: Path) -> str:
    """Return an attribute's text, empty if it can't be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _there(path: Path) -> bool:
    """Return True if a path exists, as far as this process may look."""
    try:
        return path.exists()
    except OSError:
        return False


def _permitted(node: Path) -> bool:
    """Return True if this process, under its current user, may read and write a node."""
    return os.access(node, os.R_OK | os.W_OK, effective_ids=True)
