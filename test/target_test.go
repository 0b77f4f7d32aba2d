package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"homeroom/test/disk"
)

// runIn runs a command line of the program in a folder, with nothing at its stdin.
func runIn(t testing.TB, folder, path string, args ...string) (code int, said string) {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Dir = folder
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// TestCommandsNameFolder: each command names the folder that it acted on, whether it
// was done or not, and exits with the code that the manual says.
func TestCommandsNameFolder(t *testing.T) {
	t.Parallel()
	path, data, settings := buildProgram(t), t.TempDir(), writeSettings(t, programSettings)
	backup, password := filepath.Join(t.TempDir(), "backup.db"), filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("a long password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	all := func(code map[string]int, lines ...string) {
		t.Helper()
		for _, line := range lines {
			words := append(strings.Fields(line), "-config", settings, "-data", filepath.Base(data))
			got, said := runIn(t, filepath.Dir(data), path, words...)
			if got != code[strings.Fields(line)[0]] || !strings.Contains(said, data) {
				t.Errorf("%s: exit code %d, %s", line, got, said)
			}
		}
	}
	p := startProgram(t, path, "-config", settings, "-data", data)
	all(map[string]int{"restore": exitFailed, "key": exitFailed}, "status", "stats", "reload", "console -c #ping", "admin add alice -password-file "+password,
		"admin list", "admin remove alice", "backup "+backup, "check", "restore -force "+backup, "key rotate")
	if code := p.terminate(); code != exitDone {
		t.Fatalf("exit code %d", code)
	}
	all(map[string]int{"status": exitFailed, "stats": exitFailed, "reload": exitFailed, "console": exitFailed}, "status", "stats", "reload", "console -c #ping",
		"admin add alice", "admin list", "admin remove alice", "backup "+backup, "check", "restore -force "+backup, "key rotate")
}

// TestQuestionsMakeNothing: where there is no database, no question makes one, nor a
// folder for it; admin add says that it does.
func TestQuestionsMakeNothing(t *testing.T) {
	t.Parallel()
	path, settings, above := buildProgram(t), writeSettings(t, programSettings), t.TempDir()
	data, password := filepath.Join(above, "data"), filepath.Join(t.TempDir(), "password")
	for _, line := range []string{"status", "stats", "reload", "console -c #ping", "admin list", "admin remove alice", "check", "key rotate",
		"backup " + filepath.Join(t.TempDir(), "b"), "admin add alice -password-file " + password} {
		code, said := runIn(t, above, path, append(strings.Fields(line), "-config", settings, "-data", data)...)
		if code != exitFailed {
			t.Errorf("%s: exit code %d, %s", line, code, said)
		}
		if _, err := os.Lstat(data); err == nil {
			t.Fatalf("%s has made the folder", line)
		}
	}
	if err := os.WriteFile(password, []byte("a long password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, said := runIn(t, above, path, "admin", "add", "alice", "-password-file", password, "-config", settings, "-data", data)
	if want := "there is no database in " + data + " yet; it is made now\nalice is an administrator now\ndata folder  " + data + "\n"; code != exitDone || said != want {
		t.Errorf("exit code %d, %q, want %q", code, said, want)
	}
	if code, said = runIn(t, above, path, "admin", "list", "-config", settings, "-data", data); code != exitDone || !strings.Contains(said, "alice\n") {
		t.Errorf("exit code %d, %q", code, said)
	}
}

// TestFaultySettings: a healthy server is asked and backed up, however faulty its
// settings file has become.
func TestFaultySettings(t *testing.T) {
	t.Parallel()
	path, folder := buildProgram(t), t.TempDir()
	data, settings := filepath.Join(folder, "data"), filepath.Join(folder, "chat.toml")
	good := strings.Replace(programSettings, "[server]\n", fmt.Sprintf("[server]\ndata = %q\n", data), 1)
	if err := os.WriteFile(settings, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	startProgram(t, path, "-config", settings)
	for _, fault := range []string{"[nonsense]\nx = 1\n", "[log]\nlevel = \"loud\"\n", "[log\n", "x y z\n", "[log]\nkeep = \"many\"\n"} {
		if err := os.WriteFile(settings, []byte(good+fault), 0o600); err != nil {
			t.Fatal(err)
		}
		for line, want := range map[string]string{
			"status": "settings     faulty: " + settings + ", line ", "stats": "users_online           0\n", "console -c #ping": "#ping\n",
			"backup " + filepath.Join(folder, "b"): "is written and checked", "admin list": "data folder  " + data,
		} {
			code, said := runIn(t, folder, path, append(strings.Fields(line), "-config", settings)...)
			if code != exitDone || !strings.Contains(said, want) || !strings.Contains(said, data) {
				t.Errorf("%q: %s: exit code %d, %s", fault, line, code, said)
			}
		}
		if code, said := runIn(t, folder, path, "reload", "-config", settings); code != exitFailed || !strings.Contains(said, settings+", line ") {
			t.Errorf("%q: reload: exit code %d, %s", fault, code, said)
		}
	}
}

// TestStatusShows: version, ports, what to telnet to, users on, and the last backup by
// this machine's own time.
func TestStatusShows(t *testing.T) {
	t.Parallel()
	path, folder := buildProgram(t), t.TempDir()
	data, settings := filepath.Join(folder, "data"), writeSettings(t, strings.Replace(programSettings, `listen = ""`, `listen = "127.0.0.1:0"`, 1))
	p := startProgram(t, path, "-config", settings, "-data", data)
	p.Guest("bob")
	_, port, err := net.SplitHostPort(p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	status := func() string {
		t.Helper()
		cmd := exec.Command(path, "status", "-config", settings, "-data", data)
		cmd.Env = append(os.Environ(), "TZ=Asia/Kolkata")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v, %s", err, out)
		}
		return string(out)
	}
	_, version := runIn(t, folder, path, "version")
	said := status()
	for _, want := range []string{"version      " + strings.TrimSuffix(strings.Fields(version)[1], ",") + "\n", "ports        " + port + " (telnet), ", " (web page)\n",
		"connect      telnet 127.0.0.1 " + port + "\n", "page         http://127.0.0.1:", "users on     1\n", "last backup  never\n"} {
		if !strings.Contains(said, want) {
			t.Errorf("want %q in\n%s", want, said)
		}
	}
	if code, said := runIn(t, folder, path, "backup", "-data", data, "-config", settings, "b.db"); code != exitDone {
		t.Fatal(said)
	}
	zone, err := time.LoadLocation("Asia/Kolkata")
	if err != nil {
		t.Skipf("this machine knows no other time zones: %v", err)
	}
	info, err := os.Stat(filepath.Join(data, "last-backup"))
	if err != nil {
		t.Fatal(err)
	}
	if said, want := status(), "last backup  "+info.ModTime().In(zone).Format("2006-01-02 15:04:05 MST")+"\n"; !strings.Contains(said, want) {
		t.Errorf("want %q in\n%s", want, said)
	}
}

// TestRootIsNotLed: root takes no chat.toml of another user's, and none that another
// user's link leads to, unless told to.
func TestRootIsNotLed(t *testing.T) {
	t.Parallel()
	disk.NeedRoot(t)
	const other = 12345
	path, folder, data := buildProgram(t), t.TempDir(), t.TempDir()
	text := strings.Replace(programSettings, "[server]\n", fmt.Sprintf("[server]\ndata = %q\n", data), 1)
	here, elsewhere := filepath.Join(folder, "chat.toml"), writeSettings(t, text)
	fillFolder(t, data, 1)
	want := func(led bool) {
		t.Helper()
		for _, line := range []string{"check", "key rotate"} {
			code, said := runIn(t, folder, path, strings.Fields(line)...)
			if (code == exitDone) != led || !led && (!strings.Contains(said, "belongs to another user") || strings.Contains(said, data)) {
				t.Errorf("%s: exit code %d, %s", line, code, said)
			}
		}
		if code, said := runIn(t, folder, path, "check", "-config", "chat.toml"); code != exitDone || !strings.Contains(said, data) {
			t.Errorf("told to: exit code %d, %s", code, said)
		}
	}
	if err := os.WriteFile(here, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	want(true)
	if err := os.Chown(here, other, other); err != nil {
		t.Fatal(err)
	}
	want(false)
	if err := os.Remove(here); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, here); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(here, other, other); err != nil {
		t.Fatal(err)
	}
	want(false)
}

// TestServiceFirst: a command finds the installed service from any folder, and a
// server of one's own where no service is installed. It runs in namespaces, where
// there is nothing but what it makes.
func TestServiceFirst(t *testing.T) {
	t.Parallel()
	disk.NeedRoot(t, "unshare", "mount")
	path, folder := buildProgram(t), t.TempDir()
	for name, data := range map[string]string{"service.toml": "service", "here/chat.toml": "own", "other.toml": "other"} {
		file := filepath.Join(folder, name)
		text := strings.Replace(programSettings, "[server]\n", fmt.Sprintf("[server]\ndata = %q\n", filepath.Join(folder, data)), 1)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	script := `
serve() { "$program" -config "$1" 2>"$2.log" </dev/null & until grep -q 'to connect' "$2.log"; do :; done; }
ask() { echo "= $1"; shift; "$program" "$@" 2>&1; echo "exit $?"; }
mount -t tmpfs none /etc || exit 1
mkdir empty
serve other.toml other; other=$!
cd empty; ask found status; ask found-admin admin list
cd ../here; ask question stats; ask change backup ../b.db
cd ..; serve here/chat.toml own; own=$!
cd here; ask own status; cd ../empty; ask two status; cd ..
mkdir /etc/homeroom; cp service.toml /etc/homeroom/chat.toml
cd here; ask off status; ask none backup ../b.db; cd ..
serve service.toml service; service=$!
cd here; ask service status; ask backup backup ../b.db; ask list admin list; ask told stats -config chat.toml; ask other stats -data ../other
echo 'data = ' >/etc/homeroom/chat.toml; ask broken status -data ../service
kill $other $own $service; wait
`
	cmd := exec.Command("unshare", "-mpf", "--mount-proc", "/bin/sh", "-c", script)
	cmd.Dir, cmd.Env = folder, append(os.Environ(), "program="+path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v, %s", err, out)
	}
	at := func(name string) string { return filepath.Join(folder, name) }
	for name, want := range map[string]string{
		"found": at("other") + "\n;exit 0", "found-admin": at("other") + "\n;exit 0", "question": at("other") + "\n;exit 0",
		"change": "which server is meant?;" + at("other") + ";exit 1", "own": at("own") + "\n;exit 0",
		"two": "which server is meant?;" + at("other") + ", " + at("own") + ",;exit 1",
		"off": "does not run;" + at("service") + "\n;exit 1", "none": at("service") + "/homeroom.db: no such file;exit 1",
		"service": at("service") + "\n;exit 0", "backup": at("service") + "\n;exit 0", "list": at("service") + "\n;exit 0",
		"told": at("own") + "\n;exit 0", "other": at("other") + "\n;exit 0", "broken": at("service") + "\n;exit 0",
	} {
		_, said, found := strings.Cut(string(out), "= "+name+"\n")
		said, _, _ = strings.Cut(said, "\n= ")
		for _, part := range strings.Split(want, ";") {
			if !found || !strings.Contains(said+"\n", part) {
				t.Errorf("%s: want %q in\n%s", name, part, said)
			}
		}
	}
}
