package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/kardianos/service"
)

// fakeSystem is a machine in a folder: its programs and its service manager do
// what real ones do to files, and note what they were asked for.
type fakeSystem struct {
	*machine
	t      *testing.T
	out    strings.Builder
	did    []string // what was run, and what the service manager was asked for
	has    []string // the programs that are there
	failAt int      // the number of the action that fails; 0: none
	script string
	state  service.Status
}

var errFake = errors.New("it does not work")

func newFakeSystem(t *testing.T, platform string) *fakeSystem {
	t.Helper()
	sys := &fakeSystem{t: t, has: []string{"useradd", "groupadd", "userdel", "groupdel"}}
	self := filepath.Join(t.TempDir(), "downloaded")
	sys.machine = &machine{ctx: t.Context(), out: &sys.out, platform: platform, self: self, root: t.TempDir(),
		run: sys.runFake, has: func(name string) bool { return slices.Contains(sys.has, name) },
		connect: func(script string) (manager, error) { sys.script = script; return sys, nil },
		ready:   func(context.Context, *config) error { return sys.note("ready") },
		show:    func(command []string) error { sys.out.WriteString(strings.Join(command, " ")); return nil }}
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
		sys.add("/etc/passwd", fmt.Sprintf("homeroom:x:%d:%d:Homeroom:%s:/usr/sbin/nologin", os.Getuid(), os.Getgid(), serviceData))
	case "userdel", "deluser":
		sys.drop("/etc/passwd")
	case "groupdel", "delgroup":
		sys.drop("/etc/group")
	}
	return nil
}

func (sys *fakeSystem) Install() error {
	if exists(sys.unitFile()) {
		return errors.New("there is one already")
	}
	if err := sys.note("Install"); err != nil {
		return err
	}
	return os.WriteFile(sys.unitFile(), []byte(sys.script), 0o644)
}

func (sys *fakeSystem) Uninstall() error {
	if err := sys.note("Uninstall"); err != nil {
		return err
	}
	return os.Remove(sys.unitFile())
}

func (sys *fakeSystem) Start() error                    { return sys.note("Start") }
func (sys *fakeSystem) Stop() error                     { return sys.note("Stop") }
func (sys *fakeSystem) Restart() error                  { return sys.note("Restart") }
func (sys *fakeSystem) Status() (service.Status, error) { return sys.state, nil }

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
// and can be read by who is to read them.
func TestScripts(t *testing.T) {
	t.Parallel()
	for platform, places := range map[string][]string{
		onSystemd: {serviceProgram + " serve -config " + installedSettings + "\n", "\nExecReload=" + serviceProgram + " reload -config " + installedSettings + "\n", "\nUser=homeroom\n", "\nStateDirectory=homeroom\n"},
		onOpenRC:  {"command=" + serviceProgram + "\n", "serve -config " + installedSettings + `"`, "log=" + serviceErrors + "\n", `"homeroom:homeroom"`},
		onSysV:    {"program=" + serviceProgram + "\n", "settings=" + installedSettings + "\n", "log=" + serviceErrors + "\n", "user=homeroom\n"},
	} {
		script := serviceScript(platform, serviceData, "amd64")
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
	text := strings.ReplaceAll(serviceScript(onSystemd, data, arch), serviceProgram, "/bin/true")
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
		{serviceData, "amd64", "\nSystemCallArchitectures=native\n"},
		{serviceData, "arm", "\nSystemCallArchitectures=native arm\n"},
		{serviceData, "386", "\nSystemCallArchitectures=native x86\n"},
		{`/mnt/a "big" disk\100%`, "arm64", "\nReadWritePaths=\"/mnt/a \\\"big\\\" disk\\\\100%%\"\n"},
	} {
		if got := serviceScript(onSystemd, test.data, test.arch); !strings.Contains(got, test.want) {
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
		out, _ := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", writeUnitFor(t, serviceData, arch)).CombinedOutput()
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

// TestServiceNeedsRoot: who is not root is told what to type, and nothing is done.
func TestServiceNeedsRoot(t *testing.T) {
	t.Parallel()
	path := buildProgram(t)
	credential := &syscall.Credential{Uid: 65534, Gid: 65534}
	if os.Geteuid() != 0 {
		credential = nil
	} else if err := errors.Join(os.Chmod(filepath.Dir(filepath.Dir(path)), 0o755), os.Chmod(filepath.Dir(path), 0o755), os.Chmod(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"install", "uninstall", "start", "stop", "restart"} {
		cmd := exec.Command(path, verb)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
		out, err := cmd.CombinedOutput()
		want := "homeroom: this needs the rights of root: sudo homeroom " + verb + "\n"
		if string(out) != want || cmd.ProcessState.ExitCode() != exitFailed {
			t.Errorf("%s: %v: %q, want %q", verb, err, out, want)
		}
	}
}

// TestServiceCommandLines: what is no right command line does nothing.
func TestServiceCommandLines(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"install here": "too many arguments: here", "install -h": "-no-start", "uninstall now": "too many arguments: now",
		"uninstall -h": "-purge", "start it": "too many", "stop it": "too many", "restart -h": "start the service anew",
		"logs more": "too many", "logs -n -1": "-n must not be negative", "logs -n x": "invalid value",
	} {
		code, stdout, stderr := runLine(strings.Fields(line)...)
		if help := strings.HasSuffix(line, "-h"); help != (code == exitDone) || !help && code != exitUsage || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit code %d, %q, %q; want %q", line, code, stdout, stderr, want)
		}
	}
}

// TestControl: start, stop and restart of a service that is there, and of none.
func TestControl(t *testing.T) {
	t.Parallel()
	sys := newFakeSystem(t, onSystemd)
	for _, verb := range []string{"start", "stop", "restart"} {
		if err := sys.control(verb); !errors.Is(err, errNotInstalled) {
			t.Errorf("%s, not installed: %v", verb, err)
		}
	}
	if err := sys.install(false); err != nil {
		t.Fatal(err)
	}
	sys.did = nil
	for verb, want := range map[string][]string{"start": {"Start", "ready"}, "stop": {"Stop"}, "restart": {"Restart", "ready"}} {
		if err := sys.control(verb); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
		sys.wantDone(want...)
	}
	sys.wantSaid("telnet ", "Homeroom is stopped")
	sys.failAt = 1
	if err := sys.control("start"); !errors.Is(err, errFake) {
		t.Errorf("a service that does not start: %v", err)
	}
	sys.wantDone("Start")
	sys.wantSaid("The end of its log:\n", "journalctl ")
	sys.failAt = 0
	sys.write(installedSettings, "[server]\nnme = 1\n")
	if err := sys.control("restart"); err == nil || !strings.Contains(err.Error(), "line 2: there is no setting server.nme") {
		t.Errorf("restart with bad settings: %v", err)
	}
	sys.wantDone() // what runs goes on
	if err := sys.control("stop"); err != nil {
		t.Errorf("stop with bad settings: %v", err)
	}
	sys.wantDone("Stop")
}

// TestServiceState: what the status says of the service.
func TestServiceState(t *testing.T) {
	t.Parallel()
	sys := newFakeSystem(t, onSystemd)
	if got := sys.serviceState(false); got != "" {
		t.Errorf("not installed: %q", got)
	}
	if err := sys.install(false); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		state  service.Status
		serves bool
		want   string
	}{
		{service.StatusRunning, true, "starts at boot, runs"},
		{service.StatusRunning, false, "starts at boot, is starting, or fails again and again; see homeroom logs"},
		{service.StatusStopped, false, "starts at boot, stopped; to start it: sudo homeroom start"},
	} {
		sys.state = test.state
		if got := sys.serviceState(test.serves); got != test.want {
			t.Errorf("%v, %v: %q, want %q", test.state, test.serves, got, test.want)
		}
	}
	sys.did, sys.failAt = nil, 1
	if got := sys.serviceState(false); !strings.HasPrefix(got, "does not start at boot, stopped") {
		t.Errorf("not enabled: %q", got)
	}
}

// TestLogCommand: the log is shown by the program that is there for it.
func TestLogCommand(t *testing.T) {
	t.Parallel()
	journal, file := defaultConfig(), defaultConfig()
	file.Log.To, file.Log.File = "file", filepath.Join(t.TempDir(), "chat.log")
	if err := os.WriteFile(file.Log.File, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		platform string
		cfg      *config
		follow   bool
		want     string
	}{
		{onSystemd, &journal, true, "journalctl --no-pager -u homeroom.service -n 7 -f"},
		{onSystemd, &journal, false, "journalctl --no-pager -u homeroom.service -n 7"},
		{onSystemd, &file, true, "tail -n 7 -F " + file.Log.File},
		{onSysV, &file, false, "tail -n 7 ERRORS " + file.Log.File},
		{onOpenRC, &journal, true, "tail -n 7 -F ERRORS"},
	} {
		sys := newFakeSystem(t, test.platform)
		if test.platform != onSystemd {
			sys.write(serviceErrors, "")
		}
		want := strings.ReplaceAll(test.want, "ERRORS", sys.at(serviceErrors))
		if got := strings.Join(sys.logCommand(test.cfg, 7, test.follow), " "); got != want {
			t.Errorf("%s: %q, want %q", test.platform, got, want)
		}
	}
	env := environment{ctx: t.Context(), stdout: io.Discard, stderr: io.Discard}
	if err := showLog(env, []string{"true"}); err != nil {
		t.Error(err)
	}
	if err := showLog(env, []string{"false"}); err == nil || !strings.Contains(err.Error(), "cannot show the log: false") {
		t.Errorf("a program that fails: %v", err)
	}
}

// TestWaitReady: it waits for the server of these settings, and not for ever.
func TestWaitReady(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := startProgram(t, buildProgram(t), "-config", writeSettings(t, programSettings), "-data", data)
	_, port, err := net.SplitHostPort(p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	cfg := defaultConfig()
	cfg.Server.Data, cfg.Server.Listen = data, "127.0.0.1:"+port
	if err := waitReady(t.Context(), &cfg); err != nil {
		t.Error(err)
	}
	p.terminate()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errFake)
	if err := waitReady(ctx, &cfg); !errors.Is(err, errFake) {
		t.Errorf("without a server: %v", err)
	}
}
