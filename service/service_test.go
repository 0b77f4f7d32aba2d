package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	kardianos "github.com/kardianos/service"
)

// fakeSystem is a machine in a folder: its programs and its service manager do
// what real ones do to files, and note what they were asked for.
type fakeSystem struct {
	*Machine
	t        *testing.T
	out      strings.Builder
	did      []string // what was run, and what the service manager was asked for
	has      []string // the programs that are there
	failAt   int      // the number of the action that fails; 0: none
	script   string
	settings Settings
	state    kardianos.Status
}

var errFake = errors.New("it does not work")

func newFakeSystem(t *testing.T, platform string) *fakeSystem {
	t.Helper()
	sys := &fakeSystem{t: t, has: []string{"useradd", "groupadd", "userdel", "groupdel"}}
	self := filepath.Join(t.TempDir(), "downloaded")
	sys.Machine = &Machine{ctx: t.Context(), out: &sys.out, platform: platform, self: self, root: t.TempDir(),
		run: sys.runFake, has: func(name string) bool { return slices.Contains(sys.has, name) },
		connect: func(script string) (manager, error) { sys.script = script; return fakeManager{sys}, nil },
		show:    func(command []string) error { sys.out.WriteString(strings.Join(command, " ")); return nil }}
	sys.settings = Settings{Text: "# settings", Data: Data, Ways: []string{"telnet 192.0.2.1 6500", "telnet 192.0.2.2 6500"}, Ready: func(context.Context) error { return sys.note("ready") }}
	sys.write("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
	sys.write("/etc/group", "root:x:0:\n")
	sys.write("/usr/sbin/nologin", "")
	for _, folder := range []string{"/etc/systemd/system", "/etc/init.d", "/etc/rc2.d"} {
		if err := os.MkdirAll(sys.at(folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sys.newProgram("version 1")
	return sys
}

// write writes a file of the machine.
func (sys *fakeSystem) write(path, text string) {
	sys.t.Helper()
	err := errors.Join(os.MkdirAll(filepath.Dir(sys.at(path)), 0o755), os.WriteFile(sys.at(path), []byte(text), 0o644))
	if err != nil {
		sys.t.Fatal(err)
	}
}

// newProgram is that the user has another program.
func (sys *fakeSystem) newProgram(text string) {
	sys.t.Helper()
	if err := os.WriteFile(sys.self, []byte(text), 0o755); err != nil {
		sys.t.Fatal(err)
	}
}

// read is what a file of the machine holds; "" without it.
func (sys *fakeSystem) read(path string) string {
	text, _ := os.ReadFile(sys.at(path))
	return string(text)
}

// note notes an action, which fails if it is to.
func (sys *fakeSystem) note(action string) error {
	sys.did = append(sys.did, action)
	if len(sys.did) == sys.failAt {
		return errFake
	}
	return nil
}

// add adds a line to a file of the machine.
func (sys *fakeSystem) add(path, line string) { sys.write(path, sys.read(path)+line+"\n") }

// drop takes the service's line out of a file of the machine.
func (sys *fakeSystem) drop(path string) {
	sys.write(path, regexp.MustCompile(`(?m)^homeroom:.*\n`).ReplaceAllString(sys.read(path), ""))
}

func (sys *fakeSystem) runFake(name string, args ...string) error {
	if err := sys.note(name + " " + strings.Join(args, " ")); err != nil {
		return err
	}
	switch name {
	case "groupadd", "addgroup":
		sys.add("/etc/group", fmt.Sprintf("homeroom:x:%d:", os.Getgid()))
	case "useradd", "adduser":
		sys.add("/etc/passwd", fmt.Sprintf("homeroom:x:%d:%d:Homeroom:%s:/usr/sbin/nologin", os.Getuid(), os.Getgid(), Data))
	case "userdel", "deluser":
		sys.drop("/etc/passwd")
	case "groupdel", "delgroup":
		sys.drop("/etc/group")
	}
	return nil
}

// fakeManager is the machine's service manager.
type fakeManager struct{ sys *fakeSystem }

func (m fakeManager) Install() error {
	if exists(m.sys.unitFile()) {
		return errors.New("there is one already")
	}
	if err := m.sys.note("Install"); err != nil {
		return err
	}
	return os.WriteFile(m.sys.unitFile(), []byte(m.sys.script), 0o644)
}

func (m fakeManager) Uninstall() error {
	if err := m.sys.note("Uninstall"); err != nil {
		return err
	}
	return os.Remove(m.sys.unitFile())
}

func (m fakeManager) Start() error                      { return m.sys.note("Start") }
func (m fakeManager) Stop() error                       { return m.sys.note("Stop") }
func (m fakeManager) Restart() error                    { return m.sys.note("Restart") }
func (m fakeManager) Status() (kardianos.Status, error) { return m.sys.state, nil }

// wantDone compares what was done since the last time.
func (sys *fakeSystem) wantDone(want ...string) {
	sys.t.Helper()
	if !slices.Equal(sys.did, want) {
		sys.t.Errorf("done: %q\nwant: %q", sys.did, want)
	}
	sys.did = nil
}

// wantSaid looks for texts in what was said since the last time.
func (sys *fakeSystem) wantSaid(want ...string) {
	sys.t.Helper()
	for _, w := range want {
		if !strings.Contains(sys.out.String(), w) {
			sys.t.Errorf("want %q in:\n%s", w, sys.out.String())
		}
	}
	sys.out.Reset()
}

// TestScripts: the texts arrive as they are, name the places that the program uses,
// and can be read by their readers.
func TestScripts(t *testing.T) {
	t.Parallel()
	for platform, places := range map[string][]string{
		onSystemd: {programFile + " serve -supervised -config " + SettingsFile + "\n", "\nExecReload=" + programFile + " reload -config " + SettingsFile + "\n", "\nUser=homeroom\n", "\nStateDirectory=homeroom\n"},
		onOpenRC:  {"command=" + programFile + "\n", "serve -supervised -config " + SettingsFile + `"`, "log=" + errorsFile + "\n", `"homeroom:homeroom"`},
		onSysV:    {"program=" + programFile + "\n", "settings=" + SettingsFile + "\n", "log=" + errorsFile + "\n", "user=homeroom\n"},
	} {
		script := scriptFor(platform, Data, "amd64")
		for _, place := range places {
			if !strings.Contains(script, place) {
				t.Errorf("%s: %q is not in the script", platform, place)
			}
		}
		if strings.Contains(script, "{{") {
			t.Errorf("%s: the library would take a part of the script for its own", platform)
		}
		if platform == onSystemd {
			continue
		}
		cmd := exec.Command("sh", "-n")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", platform, err, out)
		}
	}
}

// writeUnitFor writes the systemd unit of a server, with a program that is there.
func writeUnitFor(t *testing.T, data, arch string) string {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs systemd-analyze (Debian package systemd)")
	}
	path := filepath.Join(t.TempDir(), "homeroom.service")
	text := strings.ReplaceAll(scriptFor(onSystemd, data, arch), programFile, "/bin/true")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestUnit: systemd understands every line of the unit, whichever machine and data
// folder it is for.
func TestUnit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ data, arch, want string }{
		{Data, "amd64", "\nSystemCallArchitectures=native\n"},
		{Data, "arm", "\nSystemCallArchitectures=native arm\n"},
		{Data, "386", "\nSystemCallArchitectures=native x86\n"},
		{`/mnt/a "big" disk\100%`, "arm64", "\nReadWritePaths=\"/mnt/a \\\"big\\\" disk\\\\100%%\"\n"},
	} {
		if got := scriptFor(onSystemd, test.data, test.arch); !strings.Contains(got, test.want) {
			t.Errorf("%s, %s: %q is not in the unit", test.data, test.arch, test.want)
		}
		path := writeUnitFor(t, test.data, test.arch)
		if out, err := exec.Command("systemd-analyze", "verify", path).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s, %s: systemd-analyze verify: %v: %s", test.data, test.arch, err, out)
		}
	}
}

// TestUnitSecurity: the service may do little.
func TestUnitSecurity(t *testing.T) {
	t.Parallel()
	const most = 2.0
	for _, arch := range []string{"amd64", "arm"} {
		out, _ := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", writeUnitFor(t, Data, arch)).CombinedOutput()
		m := regexp.MustCompile(`Overall exposure level for homeroom\.service: ([0-9.]+)`).FindSubmatch(out)
		if m == nil {
			t.Fatalf("systemd-analyze says:\n%s", out)
		}
		score, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil || score > most {
			t.Errorf("%s: the score is %s, want %.1f at most (%v):\n%s", arch, m[1], most, err, out)
		}
		t.Logf("%s: systemd-analyze security: %s", arch, m[1])
	}
}

// TestControl: start, stop and restart of a service that is there, and of none.
func TestControl(t *testing.T) {
	t.Parallel()
	sys := newFakeSystem(t, onSystemd)
	for _, verb := range []string{"start", "stop", "restart"} {
		if err := sys.Control(verb, sys.settings); !errors.Is(err, ErrNotInstalled) {
			t.Errorf("%s, not installed: %v", verb, err)
		}
	}
	if err := sys.Install(sys.settings, false); err != nil {
		t.Fatal(err)
	}
	sys.did = nil
	for verb, want := range map[string][]string{"start": {"Start", "ready"}, "stop": {"Stop"}, "restart": {"Restart", "ready"}} {
		if err := sys.Control(verb, sys.settings); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
		sys.wantDone(want...)
	}
	sys.wantSaid("telnet ", "Homeroom is stopped")
	sys.failAt = 1
	if err := sys.Control("start", sys.settings); !errors.Is(err, errFake) {
		t.Errorf("a service that does not start: %v", err)
	}
	sys.wantDone("Start")
	sys.wantSaid("The end of its log:\n", "journalctl ")
	sys.failAt = 0
	if err := sys.Control("restart", Settings{}); err == nil || !strings.Contains(err.Error(), "server.data must be a whole path") {
		t.Errorf("restart with bad settings: %v", err)
	}
	sys.wantDone() // what runs goes on
	if err := sys.Control("stop", Settings{}); err != nil {
		t.Errorf("stop without settings: %v", err)
	}
	sys.wantDone("Stop")
}

// TestServiceState: what the status says of the service.
func TestServiceState(t *testing.T) {
	t.Parallel()
	sys := newFakeSystem(t, onSystemd)
	if got := sys.State(false); got != "" {
		t.Errorf("not installed: %q", got)
	}
	if err := sys.Install(sys.settings, false); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		state  kardianos.Status
		serves bool
		want   string
	}{
		{kardianos.StatusRunning, true, "starts at boot, runs"},
		{kardianos.StatusRunning, false, "starts at boot, is starting, or fails again and again; see homeroom logs"},
		{kardianos.StatusStopped, false, "starts at boot, stopped; to start it: sudo homeroom start"},
	} {
		sys.state = test.state
		if got := sys.State(test.serves); got != test.want {
			t.Errorf("%v, %v: %q, want %q", test.state, test.serves, got, test.want)
		}
	}
	sys.did, sys.failAt = nil, 1
	if got := sys.State(false); !strings.HasPrefix(got, "does not start at boot, stopped") {
		t.Errorf("not enabled: %q", got)
	}
}

// TestLogCommand: the log is shown by the program that is there for it.
func TestLogCommand(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "chat.log")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		platform string
		log      string
		follow   bool
		want     string
	}{
		{onSystemd, "", true, "journalctl --no-pager -u homeroom.service -n 7 -f"},
		{onSystemd, "", false, "journalctl --no-pager -u homeroom.service -n 7"},
		{onSystemd, file, true, "tail -n 7 -F " + file},
		{onSysV, file, false, "tail -n 7 ERRORS " + file},
		{onOpenRC, "", true, "tail -n 7 -F ERRORS"},
	} {
		sys := newFakeSystem(t, test.platform)
		if test.platform != onSystemd {
			sys.write(errorsFile, "")
		}
		want := strings.ReplaceAll(test.want, "ERRORS", sys.at(errorsFile))
		if got := strings.Join(sys.logCommand(test.log, 7, test.follow), " "); got != want {
			t.Errorf("%s: %q, want %q", test.platform, got, want)
		}
	}
	if err := showProgram(t.Context(), io.Discard, io.Discard, []string{"true"}); err != nil {
		t.Error(err)
	}
	if err := showProgram(t.Context(), io.Discard, io.Discard, []string{"false"}); err == nil || !strings.Contains(err.Error(), "cannot show the log: false") {
		t.Errorf("a program that fails: %v", err)
	}
}
