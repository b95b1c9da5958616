"""Accelerators as the kernel shows them: trees with the names and contents of its documents."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snapmig.encodings.engines.devices import DeviceReport, find_iaa, find_qat

PCI = "sys/bus/pci/devices"
DSA = "sys/bus/dsa/devices"
PHYSICAL = "0000:6b:00.0"
VIRTUAL = "0000:6b:00.1"


@pytest.fixture
def root() -> Iterator[Path]:
    """Give an empty directory that every user may enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="snapmig-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def put(root: Path, path: str, text: str = "") -> None:
    """Write a file as sysfs shows an attribute, with a line feed at its end."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(f"{text}\n")


def link(root: Path, path: str, target: str) -> None:
    """Make a symbolic link to another path of the tree, which is made a directory."""
    (root / target).mkdir(parents=True, exist_ok=True)
    (root / path).symlink_to(root / target)


@contextmanager
def nobody() -> Iterator[None]:
    """Do something without the permissions of root, where they are there."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def iaa(root: Path, number: int = 1, state: str = "enabled", **attributes: str) -> str:
    """Make an IAA device with two engines; returns its directory in the tree."""
    device = f"{DSA}/iax{number}"
    attributes = {"pasid_enabled": "1", "max_work_queues_size": "128", **attributes}
    for name, text in {"state": state, **attributes}.items():
        put(root, f"{device}/{name}", text)
    for engine in (0, 1):
        put(root, f"{device}/engine{number}.{engine}/group_id", "-1")
    return device


def queue(
    root: Path,
    name: str = "wq1.0",
    state: str = "enabled",
    type_: str = "user",
    mode: str = "shared",
    node: bool = True,
) -> None:
    """Make a work queue, with the node that the kernel gives an enabled one for programs."""
    device = f"{DSA}/iax{name[2:].partition('.')[0]}"
    for attribute, text in {"state": state, "type": type_, "mode": mode}.items():
        put(root, f"{device}/{name}/{attribute}", text)
    if node:
        put(root, f"dev/iax/{name}")


def pci(root: Path, address: str, device: str, driver: str | None = None) -> str:
    """Make one of Intel's PCI devices; returns its directory in the tree."""
    path = f"{PCI}/{address}"
    put(root, f"{path}/vendor", "0x8086")
    put(root, f"{path}/device", device)
    if driver is not None:
        link(root, f"{path}/driver", f"sys/bus/pci/drivers/{driver}")
    return path


def qat(root: Path, state: str = "up", services: str = "dc") -> str:
    """Make a physical function of a 4xxx device with its driver."""
    path = pci(root, PHYSICAL, "0x4940", "4xxx")
    put(root, f"{path}/qat/state", state)
    put(root, f"{path}/qat/cfg_services", services)
    return path


def function(root: Path, driver: str = "vfio-pci", group: str | None = "314") -> str:
    """Make a virtual function of it, and the nodes of vfio."""
    path = pci(root, VIRTUAL, "0x4941", driver)
    if (root / PCI / PHYSICAL).exists():
        link(root, f"{path}/physfn", f"{PCI}/{PHYSICAL}")
    if group is not None:
        link(root, f"{path}/iommu_group", f"sys/kernel/iommu_groups/{group}")
        put(root, f"dev/vfio/{group}")
    put(root, "dev/vfio/vfio")
    return path


def test_an_enabled_shared_queue_for_programs_is_an_iaa_device(root: Path) -> None:
    """A working device is reported by the path of its node, without a problem."""
    iaa(root)
    queue(root)
    assert find_iaa(root) == DeviceReport(("/dev/iax/wq1.0",), None, None)


def test_queues_of_all_iaa_devices_are_found_in_order(root: Path) -> None:
    """Device 11 comes after device 3."""
    for number in (11, 3, 1):
        iaa(root, number)
        queue(root, f"wq{number}.0")
    assert find_iaa(root).devices == tuple(f"/dev/iax/wq{number}.0" for number in (1, 3, 11))


def test_a_data_streaming_accelerator_is_no_iaa(root: Path) -> None:
    """A device named dsa on the same bus can't compress."""
    put(root, f"{DSA}/dsa0/state", "enabled")
    assert find_iaa(root).problem == "no Intel IAA device was found"


def test_an_empty_host_has_no_iaa_and_no_remedy(root: Path) -> None:
    """Without sysfs nothing fails."""
    assert find_iaa(root) == DeviceReport((), "no Intel IAA device was found", None)


def test_an_iaa_without_a_driver_wants_idxd(root: Path) -> None:
    """The PCI device is there, the bus of the driver is not."""
    pci(root, "0000:6a:02.0", "0x0cfe")
    assert find_iaa(root).remedy == "sudo modprobe idxd"


def test_an_iaa_without_pasid_wants_a_kernel_parameter(root: Path) -> None:
    """Shared queues need the IOMMU's scalable mode."""
    iaa(root, pasid_enabled="0")
    assert "intel_iommu=on,sm_on" in (find_iaa(root).remedy or "")


def test_a_disabled_iaa_is_told_by_its_name(root: Path) -> None:
    """The state comes from the device's own attribute."""
    iaa(root, state="disabled")
    assert find_iaa(root).problem == "Intel IAA device iax1 is disabled"


def test_a_disabled_iaa_with_a_queue_only_wants_enabling(root: Path) -> None:
    """A configuration that is there already is kept."""
    iaa(root, state="disabled")
    queue(root, state="disabled", node=False)
    assert find_iaa(root).remedy == (
        "sudo accel-config enable-device iax1 && sudo accel-config enable-wq iax1/wq1.0"
    )


def test_a_disabled_iaa_without_a_queue_wants_configuring_first(root: Path) -> None:
    """Engines and a queue are put into a group before the device is enabled."""
    iaa(root, state="disabled", max_work_queues_size="64")
    queue(root, state="disabled", type_="none", mode="dedicated", node=False)
    steps = (find_iaa(root).remedy or "").split(" && ")
    assert [step.split()[2:4] for step in steps] == [
        ["config-engine", "iax1/engine1.0"],
        ["config-engine", "iax1/engine1.1"],
        ["config-wq", "iax1/wq1.0"],
        ["enable-device", "iax1"],
        ["enable-wq", "iax1/wq1.0"],
    ]


def test_a_queue_for_the_kernel_is_not_for_programs(root: Path) -> None:
    """A queue set up by newer kernels themselves, for iaa_crypto, is named in the problem."""
    iaa(root)
    queue(root, type_="kernel", mode="dedicated", node=False)
    assert find_iaa(root).problem == (
        "Intel IAA device iax1 has no work queue of type user and mode shared"
        " (wq1.0 is kernel and dedicated)"
    )


def test_a_dedicated_queue_is_not_used(root: Path) -> None:
    """One process alone could submit to it; the device must be configured anew."""
    iaa(root)
    queue(root, mode="dedicated")
    assert (find_iaa(root).remedy or "").startswith("sudo accel-config disable-device iax1 && ")


def test_a_queue_that_is_not_enabled_wants_enabling(root: Path) -> None:
    """The device is enabled, its queue not yet."""
    iaa(root)
    queue(root, state="disabled", node=False)
    assert find_iaa(root).remedy == "sudo accel-config enable-wq iax1/wq1.0"


def test_a_queue_without_a_node_is_not_used(root: Path) -> None:
    """A container sees the host's sysfs, but only the nodes that it was given."""
    iaa(root)
    queue(root, node=False)
    assert (find_iaa(root).problem or "").startswith("/dev/iax/wq1.0 is not there")


def test_a_queue_of_another_user_wants_another_owner(root: Path) -> None:
    """Nodes of idxd belong to root at first."""
    iaa(root)
    queue(root)
    (root / "dev/iax/wq1.0").chmod(0o600 if os.geteuid() == 0 else 0)
    with nobody():
        report = find_iaa(root)
    assert report == DeviceReport(
        (), "no permission to use /dev/iax/wq1.0", "sudo chown $USER /dev/iax/wq1.0"
    )


def test_one_good_queue_is_enough(root: Path) -> None:
    """A device with a problem does not hide another that works."""
    iaa(root, 1, state="disabled")
    iaa(root, 3)
    queue(root, "wq3.0")
    assert find_iaa(root) == DeviceReport(("/dev/iax/wq3.0",), None, None)


def test_the_iaa_device_nearest_to_working_is_told(root: Path) -> None:
    """Of a device that is disabled and one whose queue is, the second takes one command."""
    iaa(root, 1, state="disabled")
    iaa(root, 3)
    queue(root, "wq3.0", state="disabled", node=False)
    assert find_iaa(root).remedy == "sudo accel-config enable-wq iax3/wq3.0"


def test_a_function_bound_to_vfio_is_a_qat_device(root: Path) -> None:
    """A device in use by qatlib is reported by the node of its IOMMU group."""
    qat(root)
    function(root)
    assert find_qat(root) == DeviceReport(("/dev/vfio/314",), None, None)


def test_a_virtual_machine_sees_only_the_function(root: Path) -> None:
    """Without a physical function nothing says which services it has."""
    function(root)
    assert find_qat(root).devices == ("/dev/vfio/314",)


def test_vfio_without_an_iommu_has_another_node(root: Path) -> None:
    """The kernel puts a word before the number of the group."""
    function(root)
    (root / "dev/vfio/314").rename(root / "dev/vfio/noiommu-314")
    assert find_qat(root).devices == ("/dev/vfio/noiommu-314",)


def test_the_nodes_of_the_other_driver_are_a_qat_device(root: Path) -> None:
    """Intel's out-of-tree driver serves old devices and new ones."""
    pci(root, PHYSICAL, "0x37c8", "c6xx")
    put(root, "dev/qat_adf_ctl")
    put(root, "dev/usdm_drv")
    assert find_qat(root) == DeviceReport(("/dev/qat_adf_ctl",), None, None)


def test_an_old_device_with_the_kernels_driver_is_not_used(root: Path) -> None:
    """The kernel's driver makes qat_adf_ctl as well, but programs can't compress through it."""
    pci(root, PHYSICAL, "0x37c8", "c6xx")
    put(root, "dev/qat_adf_ctl")
    assert "out-of-tree driver" in (find_qat(root).problem or "")


def test_an_empty_host_has_no_qat_and_no_remedy(root: Path) -> None:
    """Without sysfs nothing fails."""
    assert find_qat(root) == DeviceReport((), "no Intel QAT device was found", None)


def test_the_same_number_of_another_vendor_is_no_qat(root: Path) -> None:
    """Device numbers are each vendor's own."""
    put(root, f"{PCI}/{PHYSICAL}/vendor", "0x1022")
    put(root, f"{PCI}/{PHYSICAL}/device", "0x4940")
    assert find_qat(root).problem == "no Intel QAT device was found"


@pytest.mark.parametrize(
    ("device", "module"),
    [("0x4940", "qat_4xxx"), ("0x4944", "qat_4xxx"), ("0x4946", "qat_420xx")],
)
def test_a_qat_device_without_a_driver_wants_its_module(
    root: Path, device: str, module: str
) -> None:
    """Each generation has its own."""
    pci(root, PHYSICAL, device)
    assert find_qat(root).remedy == f"sudo modprobe {module}"


def test_a_qat_device_that_is_down_wants_to_be_up(root: Path) -> None:
    """The state comes from the kernel's attribute."""
    qat(root, state="down")
    path = f"/sys/bus/pci/devices/{PHYSICAL}/qat/state"
    assert find_qat(root).remedy == f"echo up | sudo tee {path}"


def test_a_qat_device_set_up_for_encryption_does_not_compress(root: Path) -> None:
    """The kernel's default for every other device is sym;asym."""
    qat(root, services="sym;asym")
    function(root)
    assert find_qat(root).problem == (
        f"Intel QAT device {PHYSICAL} is set up for sym;asym, not for compression"
    )


def test_a_qat_device_may_have_compression_beside_another_service(root: Path) -> None:
    """Services are separated by semicolons."""
    qat(root, services="sym;dc")
    function(root)
    assert find_qat(root).problem is None


def test_a_qat_device_without_functions_wants_the_service(root: Path) -> None:
    """The service of qatlib makes virtual functions and binds them."""
    qat(root)
    assert find_qat(root).remedy == "sudo systemctl enable --now qat"


def test_a_function_of_the_kernels_driver_wants_the_service(root: Path) -> None:
    """Only through vfio-pci can a program use it."""
    qat(root)
    function(root, driver="4xxxvf")
    assert find_qat(root).problem == f"Intel QAT function {VIRTUAL} is not bound to vfio-pci"


def test_a_function_without_an_iommu_wants_a_kernel_parameter(root: Path) -> None:
    """Nothing can be bound to vfio without a group."""
    qat(root)
    function(root, group=None)
    assert find_qat(root).remedy == "boot with the kernel parameter intel_iommu=on"


def test_a_function_without_a_node_is_not_used(root: Path) -> None:
    """A container sees the host's sysfs, but only the nodes that it was given."""
    qat(root)
    function(root)
    (root / "dev/vfio/314").unlink()
    assert (find_qat(root).problem or "").startswith("/dev/vfio/314 is not there")


@pytest.mark.parametrize("node", ["314", "vfio"])
def test_a_node_of_vfio_without_permission_wants_the_group(root: Path, node: str) -> None:
    """The service of qatlib gives the nodes to the group qat."""
    qat(root)
    function(root)
    for name in ("314", "vfio"):
        (root / "dev/vfio" / name).chmod(0o666)
    (root / "dev/vfio" / node).chmod(0o600 if os.geteuid() == 0 else 0)
    with nobody():
        report = find_qat(root)
    assert report.problem == f"no permission to use /dev/vfio/{node}"
    assert (report.remedy or "").startswith("sudo usermod -a -G qat $USER")
