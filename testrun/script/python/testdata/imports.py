# What public code imports from nixpkgs' driver.
import test_driver.driver
from test_driver import Driver as D, TerminalLogger as L
import test_driver.machine
from test_driver.config import DriverConfiguration, load_driver_configuration
from test_driver.debug import Debug, DebugAbstract, DebugNop
from test_driver.driver import Driver, pythonize_name
from test_driver.duration import Duration, as_seconds, as_timedelta
from test_driver.efi import EfiGuid, EfiVariable
from test_driver.errors import MachineError, RequestedAssertionFailed
from test_driver.logger import (
    AbstractLogger,
    CompositeLogger,
    JunitXMLLogger,
    LogLevel,
    TerminalLogger,
    XMLLogger,
    rootlog,
)
from test_driver.machine import (
    BaseMachine,
    Machine,
    NixStartScript,
    NspawnMachine,
    QemuMachine,
    QemuStartCommand,
    QMPSession,
    make_command,
    retry,
)
from test_driver.machine.qmp import QMPAPIError
from test_driver.polling_condition import PollingCondition, PollingConditionError
from test_driver.qmp import QMPSession as Same
from test_driver.vlan import VLan

print(QMPSession is Same, isinstance(log, AbstractLogger), LogLevel.INFO < LogLevel.ERROR)
print(as_seconds(2), as_timedelta(1.5), isinstance(3, Duration), make_command(["a b", 1]))
print(QemuStartCommand("/nix/store/x/bin/run-server-vm").machine_name, NixStartScript("qemu").machine_name)
CompositeLogger([TerminalLogger()]).info("one line")
with rootlog.nested("nested"):
    pass

# A common trick: other pauses in the loop.
original = test_driver.machine.retry
test_driver.machine.retry = lambda fn, timeout_seconds=900: original(fn, timeout_seconds)
test_driver.machine.retry(lambda last: True)


class DinitMachine(QemuMachine):
    """As in dinix and finix."""

    def wait_for_service(self, service, timeout=900):
        with self.nested(f"waiting for {service}"):
            self.wait_until_succeeds(f"dinitctl status {service}", timeout=timeout)

    def wait_for_unit(self, unit, user=None, timeout=900):
        raise NotImplementedError(unit)


extra = DinitMachine(
    out_dir=driver.out_dir,
    tmp_dir=driver.tmp_dir,
    start_command="run-extra-vm",
    logger=log,
    name="extra",
    keep_machine_state=False,
    callbacks=[],
)
print(extra, isinstance(extra, BaseMachine))
extra.start(allow_reboot=True)
extra.wait_for_service("sshd")
try:
    extra.wait_for_unit("sshd")
except NotImplementedError as e:
    print("NotImplementedError:", e)
print(test_driver.driver.Driver is type(driver), pythonize_name("a-b"))
print(D is Driver, L is TerminalLogger, hasattr(test_driver, "nothing"))
log.set_log_level(LogLevel.DEBUG)
