package test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestFoundOverTheNetwork: a server is found from another machine, by its service
// and by its host name; a second one takes other names; one that stops is
// forgotten; and a new address is announced.
func TestFoundOverTheNetwork(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	cable, path := newCable(t), buildProgram(t)
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Fatal(err)
	}
	start := func(space, listen, extra string) *program {
		settings := writeSettings(t, programSettings+"[find]\nname = \"classroom\"\n"+extra)
		return startProgram(t, ip, "netns", "exec", space, path, "-config", settings, "-data", t.TempDir(), "-listen", listen)
	}
	has := func(parts ...string) func(string) bool {
		return func(text string) bool {
			fields := strings.Fields(text)
			return !slices.ContainsFunc(parts, func(p string) bool { return !slices.Contains(fields, p) })
		}
	}
	first := start(cable.server, ":6500", "[tls]\nlisten = \":6501\"\n")
	cable.findIn(cable.clients, path, has("Homeroom", "classroom.local", "6500", "6501", "10.99.0.1"))
	cable.findIn(cable.server, path, has("Homeroom", "classroom.local"))
	if got, want := cable.lookUp(cable.clients, "10.99.0.2", "classroom.local"), "10.99.0.1"; got != want {
		t.Errorf("the answer is %s, want %s", got, want)
	}
	second := start(cable.clients, "10.99.0.2:7500", "")
	cable.findIn(cable.clients, path, has("classroom.local", "classroom-2.local", "(2)", "7500", "10.99.0.2"))
	if out, err := exec.Command(ip, "-n", cable.server, "addr", "add", "10.99.0.7/24", "dev", "cable").CombinedOutput(); err != nil {
		t.Fatalf("%v, %s", err, out)
	}
	cable.findIn(cable.clients, path, has("classroom.local", "10.99.0.7"))
	if code := first.terminate(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	cable.findIn(cable.server, path, func(text string) bool { return !has("classroom.local")(text) && has("classroom-2.local")(text) })
	if code := second.terminate(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	cable.findIn(cable.server, path, func(text string) bool { return strings.Contains(text, "no server has answered") })
	if log := second.logged(); !strings.Contains(log, "another machine on this network has the name") || !strings.Contains(log, "name=classroom-2.local") {
		t.Errorf("the second logs:\n%s", log)
	}
}
