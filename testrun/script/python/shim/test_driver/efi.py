"""UEFI variables of machines.

GUIDs are those of the UEFI specification and of EDK II.
"""

from __future__ import annotations

import binascii
import uuid

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from typing import Any


class EfiVariable:
    """One variable."""

    class Flags:
        NON_VOLATILE = 0x1
        BOOTSERVICE_ACCESS = 0x2
        RUNTIME_ACCESS = 0x4
        HARDWARE_ERROR_RECORD = 0x8
        AUTHENTICATED_WRITE_ACCESS = 0x10
        TIME_BASED_AUTHENTICATED_WRITE_ACCESS = 0x20
        APPEND_WRITE = 0x40

    class State:
        # Bits that edk2 clears as it writes a variable.
        VAR_HEADER_VALID_ONLY = 0x7F
        VAR_ADDED = 0x3F

    def __init__(
        self,
        vendor_uuid: uuid.UUID | None = None,
        name: str | None = None,
        data: bytes | None = None,
        state: int | None = None,
        flags: int | None = None,
    ) -> None:
        self.guid = vendor_uuid or uuid.UUID(int=0)
        self.name = name or ""
        self.data = data or b""
        self.state = state
        self.attributes = flags or 0

    def __repr__(self) -> str:
        return f"<EfiVariable {vendor_name(self.guid)} {self.name!r}>"

    # Names of nixpkgs' driver.

    @property
    def flags(self) -> int:
        return self.attributes

    @flags.setter
    def flags(self, value: int) -> None:
        self.attributes = value

    @property
    def vendorUUID(self) -> uuid.UUID:  # noqa: N802
        """The vendor with its bytes as they are on disk."""
        return uuid.UUID(bytes=self.guid.bytes_le)

    @property
    def volatile(self) -> bool:
        return not self.flags & self.Flags.NON_VOLATILE

    @property
    def boot_access(self) -> bool:
        return bool(self.flags & self.Flags.BOOTSERVICE_ACCESS)

    @property
    def runtime_access(self) -> bool:
        return bool(self.flags & self.Flags.RUNTIME_ACCESS)

    @property
    def hardware_error_record(self) -> bool:
        return bool(self.flags & self.Flags.HARDWARE_ERROR_RECORD)

    @property
    def authenticated_write_access(self) -> bool:
        return bool(self.flags & self.Flags.AUTHENTICATED_WRITE_ACCESS)

    @property
    def time_based_authenticated_write_access(self) -> bool:
        return bool(self.flags & self.Flags.TIME_BASED_AUTHENTICATED_WRITE_ACCESS)

    @property
    def append_write(self) -> bool:
        return bool(self.flags & self.Flags.APPEND_WRITE)

    def to_wire(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "guid": str(self.guid),
            "attributes": self.attributes,
            "data": binascii.b2a_base64(bytes(self.data), newline=False).decode(),
        }


class EfiGuid:
    """Vendors of variables."""

    gEdkiiVarErrorFlagGuid = uuid.UUID("04b37fe8-f6ae-480b-bdd5-37d98c5e89aa")
    gEfiAuthenticatedVariableGuid = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792")
    gEfiCertDbGuid = uuid.UUID("d9bee56e-75dc-49d9-b4d7-b534210f637a")
    gEfiCustomModeEnableGuid = uuid.UUID("c076ec0c-7028-4399-a072-71ee5c448b9f")
    gEfiGlobalVariableGuid = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
    gEfiImageSecurityDatabaseGuid = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
    gEfiIp4Config2ProtocolGuid = uuid.UUID("5b446ed1-e30b-4faa-871a-3654eca36080")
    gEfiIScsiInitiatorNameProtocolGuid = uuid.UUID(
        "59324945-ec44-4c0d-b1cd-9db139df070c"
    )
    gEfiMemoryTypeInformationGuid = uuid.UUID("4c19049f-4137-4dd3-9c10-8b97a83ffdfa")
    gEfiSecureBootEnableDisableGuid = uuid.UUID("f0a30bc7-af08-4556-99c4-001009c93a44")
    gEfiSystemNvDataFvGuid = uuid.UUID("fff12b8d-7696-4c8b-a985-2747075b4f50")
    gEfiVendorKeysNvGuid = uuid.UUID("9073e4e0-60ec-4b6e-9903-4c223c260f3c")
    gIScsiConfigGuid = uuid.UUID("4b47d616-a8d6-4552-9d44-ccad2e0f4cf9")
    gMicrosoftVendorGuid = uuid.UUID("77fa9abd-0359-4d32-bd60-28f4e78f784b")
    gMtcVendorGuid = uuid.UUID("eb704011-1402-11d3-8e77-00a0c969723b")
    mBmHardDriveBootVariableGuid = uuid.UUID("fab7e9e1-39dd-4f2b-8408-e20e906cb6de")


def vendor_name(vendor: uuid.UUID) -> str:
    """Returns the name of a vendor in EfiGuid; of others, the bytes on disk."""
    for name, known in vars(EfiGuid).items():
        if known == vendor:
            return name
    return str(uuid.UUID(bytes=vendor.bytes_le))


def by_vendor(
    variables: list[dict[str, Any]] | None,
) -> dict[str, dict[str, EfiVariable]] | None:
    """Returns variables as the driver reads them by vendor and name."""
    if variables is None:
        return None
    result: dict[str, dict[str, EfiVariable]] = {}
    for fields in variables:
        variable = EfiVariable(
            uuid.UUID(fields["guid"]),
            fields["name"],
            binascii.a2b_base64(fields["data"]),
            flags=fields["attributes"],
        )
        names = result.setdefault(vendor_name(variable.guid), {})
        names[variable.name] = variable
    return result
