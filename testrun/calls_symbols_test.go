package testrun

import (
	"maps"
	"slices"
	"testing"

	"vm-prebuild/testrun/script/symbols"
)

// inHosts are functions that script hosts make of others, or of their own.
var inHosts = map[string]bool{
	"log": true, "log_serial": true, "nested": true, "run_callbacks": true, // reports, conditions
	"copy_from_vm": true, "wait_for_job": true, // other names
	"cleanup_statedir": true, "wait_for_monitor_prompt": true, "console_interact": true, "shell_interact": true,
	"wait_for_qmp_event": true, // a loop over qmp_next_event
	"rollback":           true, // between rollback_begin and rollback_end
}

// Scripts can call what the driver can do, and the table of symbols tells of
// all that it can do.
func TestSymbolsAndCalls(t *testing.T) {
	told := map[string]bool{}
	for _, f := range symbols.MethodsOf("QemuMachine") {
		told[f.Name] = true
		if machineCalls[f.Name] == nil && !inHosts[f.Name] {
			t.Errorf("the driver cannot do %s, of which the table tells", f.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(machineCalls)) {
		switch name {
		case "get_attribute", "set_attribute", "qmp_send", "qmp_next_event": // behind attributes, and loops of the hosts
		default:
			if !told[name] {
				t.Errorf("the table does not tell of %s", name)
			}
		}
	}
	vlan, _ := symbols.ClassNamed("VLan")
	for _, f := range vlan.Methods {
		if driverCalls["vlan_"+f.Name] == nil {
			t.Errorf("the driver cannot do vlan_%s", f.Name)
		}
	}
}
