package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"homeroom/datadir"
)

// install installs, and fails the test where that fails.
func (sys *fakeSystem) mustInstall() {
	sys.t.Helper()
	if err := sys.install(true); err != nil {
		sys.t.Fatal(err)
	}
}

// wantModes compares the modes of files of the machine.
func (sys *fakeSystem) wantModes(modes map[string]os.FileMode) {
	sys.t.Helper()
	for path, want := range modes {
		if info, err := os.Stat(sys.at(path)); err != nil || info.Mode().Perm() != want {
			sys.t.Errorf("%s: %v, %v; want mode %v", path, info, err, want)
		}
	}
}

// wantOnly wants no other files in a folder of the machine than these.
func (sys *fakeSystem) wantOnly(folder string, want ...string) {
	sys.t.Helper()
	files, _ := os.ReadDir(sys.at(folder))
	var names []string
	for _, file := range files {
		names = append(names, file.Name())
	}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		sys.t.Errorf("%s has %q, want %q", folder, names, want)
	}
}

// TestInstall: one command makes all that the service needs, and says what to do.
func TestInstall(t *testing.T) {
	t.Parallel()
	sys := newFakeSystem(t, onSystemd)
	sys.mustInstall()
	sys.wantDone("groupadd --system homeroom",
		"useradd --system --gid homeroom --home-dir /var/lib/homeroom --no-create-home --shell /usr/sbin/nologin --comment Homeroom homeroom",
		"Install", "Start", "ready")
	sys.wantModes(map[string]os.FileMode{serviceData: 0o700, installedSettings: 0o644, filepath.Dir(installedSettings): 0o755, serviceProgram: 0o755})
	sys.wantOnly(filepath.Dir(serviceProgram), "homeroom")
	sys.wantOnly(filepath.Dir(installedSettings), "chat.toml")
	if got := sys.read(serviceProgram); got != "version 1" {
		t.Errorf("the program is %q", got)
	}
	if sys.read(systemdUnitFile) != serviceScript(onSystemd, serviceData, "amd64") {
		t.Errorf("the unit is\n%s", sys.read(systemdUnitFile))
	}
	cfg, err := loadConfig(sys.at(installedSettings))
	want := defaultConfig()
	want.Server.Data = serviceData
	if err != nil || !reflect.DeepEqual(cfg, want) {
		t.Errorf("the settings are %+v, %v", cfg, err)
	}
	sys.wantSaid("connect        telnet ", " 6500\n", "sudo homeroom admin add NAME", installedSettings+"; after a change", "homeroom.key")
}

// TestInstallTwice: the second time upgrades, and keeps what the owner has changed.
func TestInstallTwice(t *testing.T) {
	t.Parallel()
	for _, platform := range []string{onSystemd, onOpenRC, onSysV} {
		sys := newFakeSystem(t, platform)
		sys.mustInstall()
		settings := "[server]\nlisten = \":7000\"\ndata = \"/var/lib/homeroom\"\n[web]\nlisten = \"127.0.0.1:8080\"\n"
		sys.write(installedSettings, settings)
		sys.write(serviceData+"/homeroom.db", "all that was said")
		unit := strings.TrimPrefix(sys.unitFile(), sys.root)
		sys.write(unit, "an old unit")
		sys.newProgram("version 2")
		sys.did = nil
		sys.out.Reset()
		sys.mustInstall()
		if last := sys.did[len(sys.did)-2:]; strings.Join(last, " ") != "Restart ready" || strings.Contains(strings.Join(sys.did, " "), "useradd") {
			t.Errorf("%s: done: %q", platform, sys.did)
		}
		for path, want := range map[string]string{installedSettings: settings, serviceProgram: "version 2",
			serviceData + "/homeroom.db": "all that was said", unit: serviceScript(platform, serviceData, "amd64")} {
			if got := sys.read(path); got != want {
				t.Errorf("%s: %s holds %q", platform, path, got)
			}
		}
		sys.wantModes(map[string]os.FileMode{unit: map[bool]os.FileMode{true: 0o644, false: 0o755}[platform == onSystemd]})
		sys.wantSaid("kept  "+sys.at(installedSettings), "telnet ", " 7000\n", "page           http://127.0.0.1:8080/\n")
	}
}

// TestInstallItself: the installed program can install, too.
func TestInstallItself(t *testing.T) {
	t.Parallel()
	sys := newFakeSystem(t, onSystemd)
	sys.mustInstall()
	sys.self = sys.at(serviceProgram)
	before, err := os.Stat(sys.self)
	if err != nil {
		t.Fatal(err)
	}
	sys.mustInstall()
	if after, err := os.Stat(sys.self); err != nil || !os.SameFile(before, after) {
		t.Errorf("the program was copied over itself: %v", err)
	}
}

// TestInstallBusybox: where there is no useradd, there is adduser.
func TestInstallBusybox(t *testing.T) {
	t.Parallel()
	sys := newFakeSystem(t, onOpenRC)
	sys.has = []string{"adduser", "addgroup", "deluser", "delgroup"}
	sys.mustInstall()
	sys.wantDone("addgroup -S homeroom",
		"adduser -S -D -H -h /var/lib/homeroom -s /usr/sbin/nologin -G homeroom homeroom", "Install", "Start", "ready")
	if err := uninstallAll(environment{ctx: t.Context()}, sys.machine, true); err != nil {
		t.Fatal(err)
	}
	sys.wantDone("Stop", "Uninstall", "deluser homeroom", "delgroup homeroom")
	sys.has = nil
	if err := sys.install(true); err == nil || !strings.Contains(err.Error(), "there is no groupadd and no addgroup") {
		t.Errorf("without both: %v", err)
	}
}

// TestInstallNoStart: the service is there and does not run.
func TestInstallNoStart(t *testing.T) {
	t.Parallel()
	sys := newFakeSystem(t, onSystemd)
	if err := sys.install(false); err != nil {
		t.Fatal(err)
	}
	if last := sys.did[len(sys.did)-1]; last != "Install" {
		t.Errorf("done: %q", sys.did)
	}
	sys.wantSaid("To start it now: sudo homeroom start")
}

// TestInstallOtherData: a data folder elsewhere is made, and opened to the service.
func TestInstallOtherData(t *testing.T) {
	t.Parallel()
	sys := newFakeSystem(t, onSystemd)
	sys.write(installedSettings, "[server]\ndata = \"/mnt/disk/chat\"\n")
	sys.mustInstall()
	// The service's user must get to its folder, whoever makes those above it.
	sys.wantModes(map[string]os.FileMode{"/mnt": 0o755, "/mnt/disk": 0o755, "/mnt/disk/chat": 0o700, "/usr/local": 0o755})
	if !strings.Contains(sys.read(systemdUnitFile), "\nReadWritePaths=\"/mnt/disk/chat\"\n") {
		t.Errorf("the unit is\n%s", sys.read(systemdUnitFile))
	}
}

// TestInstallRefused: what cannot work is refused before anything is changed.
func TestInstallRefused(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct{ path, text, want string }{
		"bad settings":  {installedSettings, "[server]\nname = 1\n", "line 2: server.name must be a text"},
		"relative data": {installedSettings, "[server]\nname = \"x\"\n", "server.data must be a whole path for a service"},
		"hidden data":   {installedSettings, "[server]\ndata = \"/home/pi/chat\"\n", "must not be under /home"},
		"a package":     {"/lib/systemd/system/homeroom.service", "", "a package of the system has installed the service (/lib/systemd/system/homeroom.service)"},
		"a person":      {"/etc/passwd", "homeroom:x:1000:1000:Home R. Oom:/home/homeroom:/bin/bash\n", "with the home /home/homeroom, who is somebody else"},
	} {
		sys := newFakeSystem(t, onSystemd)
		sys.write(test.path, test.text)
		if err := sys.install(true); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", what, err, test.want)
		}
		sys.wantDone()
		if exists(sys.at(serviceProgram)) || exists(sys.at(serviceData)) || exists(sys.at(systemdUnitFile)) {
			t.Errorf("%s: something is installed", what)
		}
	}
}

// TestInstallCutOff: whichever step fails, it is told, and the next try makes all good.
func TestInstallCutOff(t *testing.T) {
	t.Parallel()
	for failAt := 1; ; failAt++ {
		sys := newFakeSystem(t, onSystemd)
		sys.failAt = failAt
		err := sys.install(true)
		if err == nil {
			if failAt != 6 {
				t.Errorf("%d steps can fail, want 5: %q", failAt-1, sys.did)
			}
			return
		}
		if !errors.Is(err, errFake) {
			t.Errorf("step %d: %v", failAt, err)
		}
		sys.failAt = 0
		sys.mustInstall()
		if sys.read(serviceProgram) != "version 1" || sys.read(systemdUnitFile) == "" {
			t.Errorf("step %d: the second try has not installed everything", failAt)
		}
	}
}

// TestUninstall: the service goes, what it has stored stays, and a new one finds it.
func TestUninstall(t *testing.T) {
	t.Parallel()
	sys := newFakeSystem(t, onSysV)
	if err := uninstallOnly(sys.machine); !errors.Is(err, errNotInstalled) {
		t.Errorf("not installed: %v", err)
	}
	sys.mustInstall()
	sys.write(serviceData+"/homeroom.db", "all that was said")
	if err := os.Symlink(initScriptFile, sys.at("/etc/rc2.d/S50homeroom")); err != nil {
		t.Fatal(err)
	}
	sys.did = nil
	if err := uninstallOnly(sys.machine); err != nil {
		t.Fatal(err)
	}
	sys.wantDone("Stop", "Uninstall")
	sys.wantOnly("/etc/rc2.d")
	sys.wantOnly("/etc/init.d")
	sys.wantOnly(filepath.Dir(serviceProgram))
	sys.wantSaid("kept the data and its key: "+sys.at(serviceData), "kept the settings: "+sys.at("/etc/homeroom"), "kept the user and the group homeroom\n")
	sys.mustInstall()
	if got := sys.read(serviceData + "/homeroom.db"); got != "all that was said" {
		t.Errorf("the data is %q", got)
	}
}

// TestPurge: everything goes, after a yes and nothing else.
func TestPurge(t *testing.T) {
	t.Parallel()
	sys := newFakeSystem(t, onSystemd)
	sys.mustInstall()
	sys.write(serviceData+"/homeroom.key", "secret")
	sys.write("/media/stick/chat.key", "secret")
	sys.write(installedSettings, "[server]\ndata = \"/var/lib/homeroom\"\nkey = \"/media/stick/chat.key\"\n")
	sys.write("/media/stick/holiday.jpg", "a beach")
	sys.did = nil
	for answer, want := range map[string]string{"no\n": "that was not yes", "y\n": "that was not yes", "": "that was not yes", "-": "no terminal"} {
		env := environment{ctx: t.Context(), stdout: &sys.out, stdin: strings.NewReader(answer)}
		if answer == "-" {
			env.stdin = nil
		}
		if err := uninstallAll(env, sys.machine, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the answer %q: %v", answer, err)
		}
		sys.wantDone()
	}
	everything := []string{"the data and its key: " + sys.at(serviceData), "the key: " + sys.at("/media/stick/chat.key"),
		"the settings: " + sys.at("/etc/homeroom"), "the user and the group homeroom\n"}
	sys.wantSaid(append(everything, "removes, for ever:")...)
	env := environment{ctx: t.Context(), stdout: &sys.out, stdin: strings.NewReader("yes\n")}
	if err := uninstallAll(env, sys.machine, false); err != nil {
		t.Fatal(err)
	}
	sys.wantDone("Stop", "Uninstall", "userdel homeroom", "groupdel homeroom")
	for _, w := range everything {
		sys.wantSaidOf("removed " + w)
	}
	sys.wantOnly("/media/stick", "holiday.jpg")
	for _, path := range []string{serviceData, "/etc/homeroom", serviceProgram, systemdUnitFile} {
		if exists(sys.at(path)) {
			t.Errorf("%s is still there", path)
		}
	}
	if err := uninstallAll(env, sys.machine, true); !errors.Is(err, errNotInstalled) {
		t.Errorf("once more: %v", err)
	}
}

// wantSaidOf is wantSaid without forgetting what was said.
func (sys *fakeSystem) wantSaidOf(want string) {
	sys.t.Helper()
	if !strings.Contains(sys.out.String(), want) {
		sys.t.Errorf("want %q in:\n%s", want, sys.out.String())
	}
}

// TestPurgeLeavesOthers: folders and people that only look like the service's stay.
func TestPurgeLeavesOthers(t *testing.T) {
	t.Parallel()
	sys := newFakeSystem(t, onSystemd)
	sys.mustInstall()
	lock, err := datadir.Lock(sys.at(serviceData))
	if err != nil {
		t.Fatal(err)
	}
	env := environment{ctx: t.Context(), stdout: &sys.out}
	if err := uninstallAll(env, sys.machine, true); err == nil || !strings.Contains(err.Error(), "; end that first") {
		t.Errorf("a folder that is in use: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	sys.write("/etc/passwd", "homeroom:x:999:999::/somewhere:/bin/bash\n")
	sys.write(installedSettings, "[server]\ndata = \"/mnt/photos\"\n")
	sys.write("/mnt/photos/beach.jpg", "a beach")
	sys.did = nil
	if err := uninstallAll(env, sys.machine, true); err != nil {
		t.Fatal(err)
	}
	sys.wantDone() // no userdel
	sys.wantOnly("/mnt/photos", "beach.jpg")
}

// TestReadAnswer: Ctrl-C ends the question.
func TestReadAnswer(t *testing.T) {
	t.Parallel()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := readAnswer(ctx, in); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("got %v", err)
	}
}

// TestSettingsPath: which settings file a command takes that was given none.
func TestSettingsPath(t *testing.T) {
	t.Chdir(t.TempDir())
	installed := filepath.Join(t.TempDir(), "chat.toml")
	want := func(given, want string) {
		t.Helper()
		if got := settingsPath(given, installed); got != want {
			t.Errorf("settingsPath(%q) is %q, want %q", given, got, want)
		}
	}
	want("", "")
	want("other.toml", "other.toml")
	if err := os.WriteFile(installed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want("", installed)
	want("other.toml", "other.toml")
	if err := os.WriteFile("chat.toml", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want("", "")
}

// TestRootGivesBack: what root makes in the service's data folder, the service can
// read; what is not the folder's own is left as it is.
func TestRootGivesBack(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const user, group = 12345, 12346
	source, folder := t.TempDir(), t.TempDir()
	serveOnce(t, source)
	file := filepath.Join(t.TempDir(), "backup")
	if code, _, stderr := runLine("backup", "-data", source, file); code != exitDone {
		t.Fatal(stderr)
	}
	outside := filepath.Join(t.TempDir(), "shadow")
	err := errors.Join(os.WriteFile(outside, nil, 0o600), os.Symlink(outside, filepath.Join(folder, "link")),
		os.Link(outside, filepath.Join(folder, "hard")), os.Lchown(filepath.Join(folder, "link"), 0, 0), os.Chown(folder, user, group))
	if err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := runLine("restore", "-data", folder, file); code != exitDone {
		t.Fatal(stderr)
	}
	for path, want := range map[string]uint32{filepath.Join(folder, databaseFile): user, filepath.Join(folder, datadir.LockFile): user, outside: 0} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Sys().(*syscall.Stat_t).Uid; got != want {
			t.Errorf("%s belongs to %d, want %d", path, got, want)
		}
	}
}

// serveOnce makes a data folder by running a server on it for a moment.
func serveOnce(t *testing.T, folder string) {
	t.Helper()
	cfg := defaultConfig()
	cfg.Server.Data, cfg.Server.Listen, cfg.Auth.Iterations = folder, "127.0.0.1:0", 16
	srv, err := newServer(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.stop("the test is over"); err != nil {
		t.Fatal(err)
	}
}

// TestServiceSample: the service's settings differ from the sample only where they must.
func TestServiceSample(t *testing.T) {
	t.Parallel()
	for platform, want := range map[string][]string{
		onSystemd: {`data   = "/var/lib/homeroom"`},
		onSysV:    {`data   = "/var/lib/homeroom"`, `to = "file"`, `file = "/var/log/homeroom/homeroom.log"`},
	} {
		before, after := strings.Split(sampleConfig, "\n"), strings.Split(serviceSample(platform), "\n")
		var changed []string
		for i := range before {
			if before[i] != after[i] {
				text, _, _ := strings.Cut(after[i], "#")
				changed = append(changed, strings.TrimSpace(text))
			}
		}
		if !slices.Equal(changed, want) {
			t.Errorf("%s: changed: %q, want %q", platform, changed, want)
		}
	}
}
