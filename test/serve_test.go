package test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"homeroom/test/wire"
)

// TestServe: flags win over the file, the listening line comes, a stop is clean,
// and nothing is written outside the data folder.
func TestServe(t *testing.T) {
	t.Parallel()
	path, data := buildProgram(t), t.TempDir()
	settings := writeSettings(t, "[server]\nname = \"Annex\"\nlisten = \"127.0.0.1:1\"\ndata = \"elsewhere\"\n")
	p := startProgram(t, path, "-config", settings, "-data", data, "-listen", "127.0.0.1:0")
	c := p.Connect()
	c.Expect(`@mess #hello "Annex" "type your name and press Enter; programs: #help"`)
	c.Ask("#ping", "@ret #ping")
	if code := p.terminate(); code != exitDone {
		t.Errorf("exit code %d after SIGTERM, want %d; log:\n%s", code, exitDone, p.logged())
	}
	c.Ended(`@mess #warning "the server is stopping"`)
	if _, err := os.Stat(filepath.Join(data, databaseFile)); err != nil {
		t.Errorf("no database in the folder that -data names: %v", err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(path), "elsewhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of the settings file was made in spite of -data (%v)", err)
	}
	if !strings.Contains(p.logged(), "stopped") {
		t.Errorf("the log does not say that it stopped:\n%s", p.logged())
	}
}

// TestServeInterrupted: SIGINT stops as SIGTERM does, and what is stored is
// nobody else's to read.
func TestServeInterrupted(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "new", "folder")
	p := startProgram(t, buildProgram(t), "serve", "-config", writeSettings(t, programSettings), "-data", data)
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := p.exitCode(); code != exitDone {
		t.Errorf("exit code %d after SIGINT, want %d", code, exitDone)
	}
	files, err := filepath.Glob(filepath.Join(data, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("the data folder has no files (%v)", err)
	}
	for _, path := range append(files, data) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v", path, info.Mode())
		}
	}
}

func TestServeRefuses(t *testing.T) {
	t.Parallel()
	path, settings := buildProgram(t), writeSettings(t, programSettings)
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, []byte("no folder"), 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := t.TempDir()
	if err := os.WriteFile(filepath.Join(damaged, databaseFile), []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"no settings file", []string{"-config", plain + "-not-there"}, "cannot read the settings"},
		{"a folder as settings", []string{"-config", t.TempDir()}, "cannot read the settings"},
		{"bad settings", []string{"-config", writeSettings(t, "[server]\nport = 1\n")}, "chat.toml, line 2: there is no setting server.port"},
		{"a file as folder", []string{"-config", settings, "-data", plain}, "cannot make the data folder"},
		{"a folder in a file", []string{"-config", settings, "-data", filepath.Join(plain, "data")}, "cannot make the data folder"},
		{"a damaged database", []string{"-config", settings, "-data", damaged}, "is damaged"},
		{"bad address", []string{"-config", settings, "-data", t.TempDir(), "-listen", "6500"}, "server.listen must be an address and a port"},
		{"an address of somebody else", []string{"-config", settings, "-data", t.TempDir(), "-listen", "192.0.2.1:6500"}, "cannot listen on 192.0.2.1:6500"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if why := refusal(t, path, test.args...); !strings.Contains(why, test.want) {
				t.Errorf("got %q, want %q in it", why, test.want)
			}
		})
	}
}

// TestServePortInUse: the second server says so, and gives its folder back.
func TestServePortInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	path, settings, data := buildProgram(t), writeSettings(t, programSettings), t.TempDir()
	why := refusal(t, path, "-config", settings, "-data", data, "-listen", l.Addr().String())
	if !strings.Contains(why, "cannot listen on "+l.Addr().String()) || !strings.Contains(why, "in use") {
		t.Errorf("got %q", why)
	}
	startProgram(t, path, "-config", settings, "-data", data)
}

// TestServeLocked: a second process on the same folder names the first one.
func TestServeLocked(t *testing.T) {
	t.Parallel()
	path, settings, data := buildProgram(t), writeSettings(t, programSettings), t.TempDir()
	first := startProgram(t, path, "-config", settings, "-data", data)
	guest := first.Guest("early")
	why := refusal(t, path, "-config", settings, "-data", data)
	if want := "process " + strconv.Itoa(first.cmd.Process.Pid) + ","; !strings.Contains(why, want) || !strings.Contains(why, data) {
		t.Errorf("got %q, want %q and the folder in it", why, want)
	}
	guest.Ask("#ping", "@ret #ping")
	first.kill()
	startProgram(t, path, "-config", settings, "-data", data).Guest("late").Ask("#ping", "@ret #ping")
}

// TestServeKey: the program starts with the key that the settings name, makes it,
// and refuses in one line without it.
func TestServeKey(t *testing.T) {
	t.Parallel()
	path, data, key := buildProgram(t), t.TempDir(), filepath.Join(t.TempDir(), "elsewhere.key")
	settings := writeSettings(t, strings.Replace(programSettings, "[server]", "[server]\nkey = \""+key+"\"", 1))
	p := startProgram(t, path, "-config", settings, "-data", data)
	p.Guest("alice").Ask("#createroom den", "@status 0")
	p.terminate()
	if _, err := os.Stat(filepath.Join(data, keyFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a key in the data folder, too (%v)", err)
	}
	if why := refusal(t, path, "-config", writeSettings(t, programSettings), "-data", data); !strings.Contains(why, "is missing") {
		t.Errorf("without its key: %q", why)
	}
	ask := writeSettings(t, strings.Replace(programSettings, "[server]", "[server]\nkey = \"ask\"", 1))
	if why := refusal(t, path, "-config", ask, "-data", t.TempDir()); !strings.Contains(why, "there is no terminal") {
		t.Errorf("a passphrase without a terminal: %q", why)
	}
	startProgram(t, path, "-config", settings, "-data", data).Guest("bob").Ask("#changeroom den", "@status 0")
}

// TestWebPortInUse: the start says so and gives everything back.
func TestWebPortInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	text := strings.Replace(programSettings, `listen = ""`, fmt.Sprintf("listen = %q", l.Addr().String()), 1)
	why := refusal(t, buildProgram(t), "-config", writeSettings(t, text), "-data", t.TempDir())
	if !strings.Contains(why, "cannot listen on "+l.Addr().String()) {
		t.Errorf("got %q", why)
	}
}

// TestFileLimit: the server takes as many files as it may have (Go does that, and
// leaves one out).
func TestFileLimit(t *testing.T) {
	t.Parallel()
	p := startShell(t, "ulimit -S -n 256 && ulimit -H -n 4096", buildProgram(t), "-config", writeSettings(t, programSettings), "-data", t.TempDir())
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^Max open files +409[56] +4096 `).Match(limits) {
		t.Errorf("the limit was not raised to 4096:\n%s", limits)
	}
}

// TestOutOfFiles: a server that cannot open more files says so once, serves those
// who are on, and serves others when it can again.
func TestOutOfFiles(t *testing.T) {
	t.Parallel()
	p := startShell(t, "ulimit -n 64", buildProgram(t), "-config", writeSettings(t, programSettings), "-data", t.TempDir())
	first := p.Guest("first")
	var waiting []net.Conn
	for range 64 {
		conn, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		waiting = append(waiting, conn)
	}
	p.loggedLine("cannot accept connections")
	first.Ask("#createroom made", "@status 0")
	for _, conn := range waiting {
		conn.Close()
	}
	p.Guest("second").Ask("#listusers", "@ret #listusers 2", "first anon", "second anon")
	if n := strings.Count(p.logged(), "cannot accept connections"); n != 1 {
		t.Errorf("it was logged %d times, want once:\n%s", n, p.logged())
	}
	if code := p.terminate(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
}

// TestLogToFile: the shipped program logs to homeroom.log in its folder, which
// nobody else can read, and nothing to stderr.
func TestLogToFile(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := launch(t, buildProgram(t), "-config", writeSettings(t, programSettings+"[log]\nto = \"file\"\n"), "-data", data)
	path := filepath.Join(data, logName)
	waitUntilServing(t, data, nil)
	if code := p.terminate(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	text := fileContent(t, path)
	if !connectText.MatchString(text) || !strings.HasSuffix(text, "level=INFO msg=stopped\n") {
		t.Errorf("the log holds\n%s", text)
	}
	if p.logged() != "" {
		t.Errorf("on stderr: %s", p.logged())
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v (%v)", info.Mode(), err)
	}
}

// TestReloadSignal: SIGHUP reads the settings file of the shipped program anew, and
// the log says what came of it.
func TestReloadSignal(t *testing.T) {
	t.Parallel()
	data, settings := t.TempDir(), writeSettings(t, programSettings)
	p := startProgram(t, buildProgram(t), "-config", settings, "-data", data)
	host := dialFolder(t, data)
	host.Ask("#watchlog on", "@status 0")
	reload := func(text, want string) {
		t.Helper()
		if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if got := host.Read(); !strings.Contains(got, want) {
			t.Errorf("the log says %s, want %s", got, want)
		}
	}
	reload(programSettings+"[server]\n", "the settings are refused; all stays as it was")
	reload(programSettings, "the settings were read; nothing changed")
	reload(strings.Replace(programSettings, "rooms = 0", "rooms = 7", 1), "limits.rooms is 7 now; it was 0")
	if code := p.terminate(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
}

// TestLogReaderGone: the server does not end because nobody reads its log.
func TestLogReaderGone(t *testing.T) {
	t.Parallel()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	cmd := exec.Command(buildProgram(t), "-config", writeSettings(t, programSettings), "-data", data)
	cmd.Stderr = writer
	reader.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	waitUntilServing(t, data, ended)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("a server with nobody at its log: %v", err)
	}
}

// waitUntilServing waits until a program that cannot say so answers on the control
// socket of its data folder.
func waitUntilServing(t *testing.T, folder string, ended chan error) {
	t.Helper()
	for began := time.Now(); tryFolder(t, folder) == nil; {
		select {
		case err := <-ended:
			t.Fatalf("the program has ended: %v", err)
		default:
		}
		if time.Since(began) > wire.Patience {
			t.Fatal("the program does not serve")
		}
	}
}
