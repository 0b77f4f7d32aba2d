package service

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"homeroom/datadir"
)

// install installs, and fails the test where that fails.
func (sys *fakeSystem) mustInstall() {
	sys.t.Helper()
	if err := sys.Install(sys.settings, true); err != nil {
		sys.t.Fatal(err)
	}
}

// agree lets everything be removed.
func agree([]Leftover) error { return nil }

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
	sys.wantModes(map[string]os.FileMode{Data: 0o700, SettingsFile: 0o644, filepath.Dir(SettingsFile): 0o755, programFile: 0o755})
	sys.wantOnly(filepath.Dir(programFile), "homeroom")
	sys.wantOnly(filepath.Dir(SettingsFile), "chat.toml")
	if got := sys.read(programFile); got != "version 1" {
		t.Errorf("the programFile is %q", got)
	}
	if sys.read(unitPath) != scriptFor(onSystemd, Data, "amd64") {
		t.Errorf("the unit is\n%s", sys.read(unitPath))
	}
	if got := sys.read(SettingsFile); got != sys.settings.Text {
		t.Errorf("the settings are %q", got)
	}
	sys.wantSaid("connect        telnet 192.0.2.1 6500\n", "or             telnet 192.0.2.2 6500\n", "sudo homeroom admin add NAME", SettingsFile+"; after a change", "homeroom.key")
}

// TestInstallTwice: the second time upgrades, and keeps what the owner has changed.
func TestInstallTwice(t *testing.T) {
	t.Parallel()
	for _, platform := range []string{onSystemd, onOpenRC, onSysV} {
		sys := newFakeSystem(t, platform)
		sys.mustInstall()
		settings := "# changed by the owner"
		sys.settings.Pages = []string{"http://127.0.0.1:8080/"}
		sys.write(SettingsFile, settings)
		sys.write(Data+"/homeroom.db", "all that was said")
		unit := strings.TrimPrefix(sys.unitFile(), sys.root)
		sys.write(unit, "an old unit")
		sys.newProgram("version 2")
		sys.did = nil
		sys.out.Reset()
		sys.mustInstall()
		if last := sys.did[len(sys.did)-2:]; strings.Join(last, " ") != "Restart ready" || strings.Contains(strings.Join(sys.did, " "), "useradd") {
			t.Errorf("%s: done: %q", platform, sys.did)
		}
		for path, want := range map[string]string{SettingsFile: settings, programFile: "version 2",
			Data + "/homeroom.db": "all that was said", unit: scriptFor(platform, Data, "amd64")} {
			if got := sys.read(path); got != want {
				t.Errorf("%s: %s holds %q", platform, path, got)
			}
		}
		sys.wantModes(map[string]os.FileMode{unit: map[bool]os.FileMode{true: 0o644, false: 0o755}[platform == onSystemd]})
		sys.wantSaid("kept  "+sys.at(SettingsFile), "page           http://127.0.0.1:8080/\n")
	}
}

// TestInstallItself: the installed programFile can install, too.
func TestInstallItself(t *testing.T) {
	t.Parallel()
	sys := newFakeSystem(t, onSystemd)
	sys.mustInstall()
	sys.self = sys.at(programFile)
	before, err := os.Stat(sys.self)
	if err != nil {
		t.Fatal(err)
	}
	sys.mustInstall()
	if after, err := os.Stat(sys.self); err != nil || !os.SameFile(before, after) {
		t.Errorf("the programFile was copied over itself: %v", err)
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
	if err := sys.Purge(sys.settings, agree); err != nil {
		t.Fatal(err)
	}
	sys.wantDone("Stop", "Uninstall", "deluser homeroom", "delgroup homeroom")
	sys.has = nil
	if err := sys.Install(sys.settings, true); err == nil || !strings.Contains(err.Error(), "there is no groupadd and no addgroup") {
		t.Errorf("without both: %v", err)
	}
}

// TestInstallNoStart: the service is there and does not run.
func TestInstallNoStart(t *testing.T) {
	t.Parallel()
	sys := newFakeSystem(t, onSystemd)
	if err := sys.Install(sys.settings, false); err != nil {
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
	sys.settings.Data = "/mnt/disk/chat"
	sys.mustInstall()
	// The service's user must get to its folder, whoever makes those above it.
	sys.wantModes(map[string]os.FileMode{"/mnt": 0o755, "/mnt/disk": 0o755, "/mnt/disk/chat": 0o700, "/usr/local": 0o755})
	if !strings.Contains(sys.read(unitPath), "\nReadWritePaths=\"/mnt/disk/chat\"\n") {
		t.Errorf("the unit is\n%s", sys.read(unitPath))
	}
}

// TestInstallRefused: what cannot work is refused before anything is changed.
func TestInstallRefused(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct{ data, path, text, want string }{
		"relative data": {"data", "", "", "server.data must be a whole path for a service"},
		"hidden data":   {"/home/pi/chat", "", "", "must not be under /home"},
		"a package":     {Data, "/lib/systemd/system/homeroom.service", "", "a package of the system has installed the service (/lib/systemd/system/homeroom.service)"},
		"a person":      {Data, "/etc/passwd", "homeroom:x:1000:1000:Home R. Oom:/home/homeroom:/bin/bash\n", "with the home /home/homeroom, who is somebody else"},
	} {
		sys := newFakeSystem(t, onSystemd)
		sys.settings.Data = test.data
		if test.path != "" {
			sys.write(test.path, test.text)
		}
		if err := sys.Install(sys.settings, true); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", what, err, test.want)
		}
		sys.wantDone()
		if exists(sys.at(programFile)) || exists(sys.at(Data)) || exists(sys.at(unitPath)) {
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
		err := sys.Install(sys.settings, true)
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
		if sys.read(programFile) != "version 1" || sys.read(unitPath) == "" {
			t.Errorf("step %d: the second try has not installed everything", failAt)
		}
	}
}

// TestUninstall: the service goes, what it has stored stays, and a new one finds it.
func TestUninstall(t *testing.T) {
	t.Parallel()
	sys := newFakeSystem(t, onSysV)
	if err := sys.Uninstall(sys.settings); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("not installed: %v", err)
	}
	sys.mustInstall()
	sys.write(Data+"/homeroom.db", "all that was said")
	if err := os.Symlink(scriptPath, sys.at("/etc/rc2.d/S50homeroom")); err != nil {
		t.Fatal(err)
	}
	sys.did = nil
	if err := sys.Uninstall(sys.settings); err != nil {
		t.Fatal(err)
	}
	sys.wantDone("Stop", "Uninstall")
	sys.wantOnly("/etc/rc2.d")
	sys.wantOnly("/etc/init.d")
	sys.wantOnly(filepath.Dir(programFile))
	sys.wantSaid("kept the data and its key: "+sys.at(Data), "kept the settings: "+sys.at("/etc/homeroom"), "kept the user and the group homeroom\n")
	sys.mustInstall()
	if got := sys.read(Data + "/homeroom.db"); got != "all that was said" {
		t.Errorf("the data is %q", got)
	}
}

// TestPurge: everything goes, after a yes and nothing else.
func TestPurge(t *testing.T) {
	t.Parallel()
	sys := newFakeSystem(t, onSystemd)
	sys.mustInstall()
	sys.write(Data+"/homeroom.key", "secret")
	sys.write("/media/stick/chat.key", "secret")
	sys.settings.Key = "/media/stick/chat.key"
	sys.write("/media/stick/holiday.jpg", "a beach")
	sys.did = nil
	refused := errors.New("that was not yes")
	if err := sys.Purge(sys.settings, func([]Leftover) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("refused, and %v", err)
	}
	sys.wantDone()
	everything := []string{"the data and its key: " + sys.at(Data), "the key: " + sys.at("/media/stick/chat.key"),
		"the settings: " + sys.at("/etc/homeroom"), "the user and the group homeroom\n"}
	var asked string
	err := sys.Purge(sys.settings, func(found []Leftover) error {
		for _, l := range found {
			asked += l.String() + "\n"
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sys.wantDone("Stop", "Uninstall", "userdel homeroom", "groupdel homeroom")
	for _, w := range everything {
		if !strings.Contains(asked, w) || !strings.Contains(sys.out.String(), "removed "+w) {
			t.Errorf("%q is not in %q, or not in %q", w, asked, sys.out.String())
		}
	}
	sys.wantOnly("/media/stick", "holiday.jpg")
	for _, path := range []string{Data, "/etc/homeroom", programFile, unitPath} {
		if exists(sys.at(path)) {
			t.Errorf("%s is still there", path)
		}
	}
	if err := sys.Purge(sys.settings, agree); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("once more: %v", err)
	}
}

// TestPurgeLeavesOthers: folders and people that only look like the service's stay.
func TestPurgeLeavesOthers(t *testing.T) {
	t.Parallel()
	sys := newFakeSystem(t, onSystemd)
	sys.mustInstall()
	lock, err := datadir.Lock(sys.at(Data))
	if err != nil {
		t.Fatal(err)
	}
	if err := sys.Purge(sys.settings, agree); err == nil || !strings.Contains(err.Error(), "; end that first") {
		t.Errorf("a folder that is in use: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	sys.write("/etc/passwd", "homeroom:x:999:999::/somewhere:/bin/bash\n")
	sys.settings.Data = "/mnt/photos"
	sys.write("/mnt/photos/beach.jpg", "a beach")
	sys.did = nil
	if err := sys.Purge(sys.settings, agree); err != nil {
		t.Fatal(err)
	}
	sys.wantDone() // no userdel
	sys.wantOnly("/mnt/photos", "beach.jpg")
}
