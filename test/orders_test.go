package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"homeroom/test/wire"
)

// dialFolder connects to the control socket of the server on a data folder.
func dialFolder(t testing.TB, folder string) *wire.Client {
	t.Helper()
	c := tryFolder(t, folder)
	if c == nil {
		t.Fatal("there is no control socket")
	}
	return c
}

// tryFolder is dialFolder where there may be no server; nil: there is none.
func tryFolder(t testing.TB, folder string) *wire.Client {
	t.Helper()
	conn, err := net.Dial("unix", filepath.Join(folder, controlFile))
	if err != nil {
		return nil
	}
	c := wire.New(t, conn)
	if _, err := c.ReadErr(); err != nil { // a server that is ending
		conn.Close()
		return nil
	}
	t.Cleanup(func() { conn.Close() })
	return c
}

// TestOrders: the shipped program stops, starts anew in the same process, or ends so
// that a service manager starts it anew, and runs the settings' commands for the machine; everybody is told, and it was answered.
func TestOrders(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	ran := filepath.Join(data, "rebooted")
	settings := writeSettings(t, programSettings+fmt.Sprintf("[admin]\nreboot = %q\npoweroff = \"/nonexistent\"\n", "touch "+ran))
	p := startProgram(t, buildProgram(t), "-config", settings, "-data", data)
	bob := p.Guest("bob")
	rewrite := func(text string) {
		t.Helper()
		if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile(settings)
	if err != nil {
		t.Fatal(err)
	}
	rewrite("nonsense = 1\n") // with which the server would not start again
	dialFolder(t, data).Ask("#restart", fmt.Sprintf(`@mess #warning "%s, line 1: there is no setting nonsense; `+"`homeroom config`"+` shows them all"`, settings), "@status 3504")
	rewrite(string(good))
	dialFolder(t, data).Ask(`#restart "a new version"`, "@status 0", `@mess #warning "the server is starting anew (Host): a new version"`)
	bob.Ended(`@mess #warning "the server is starting anew (Host): a new version"`)
	for again := (*wire.Client)(nil); again == nil; again = tryFolder(t, data) { // there is none for a moment
		select {
		case <-p.ended:
			t.Fatalf("it did not start anew (%v); it says:\n%s", p.cmd.ProcessState, p.logged())
		default:
		}
		_ = p.cmd.Process.Signal(syscall.SIGHUP) // no moment of it ends the program
	}
	host := dialFolder(t, data)
	host.Ask("#poweroff", "@status 0", `@mess #warning "the machine is being switched off (Host)"`, `@mess #warning "that failed; the server goes on"`)
	host.Ask("#ping", "@ret #ping")
	host.Ask("#reboot now", "@status 0", `@mess #warning "the machine is starting anew (Host): now"`)
	if code := p.exitCode(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(ran); err != nil {
		t.Errorf("the command did not run: %v", err)
	}
	p = startProgram(t, buildProgram(t), "-config", settings, "-data", data, "-supervised")
	dialFolder(t, data).Ask("#restart", "@status 0", `@mess #warning "the server is starting anew (Host)"`)
	if code := p.exitCode(); code != exitRestart {
		t.Errorf("exit code %d", code)
	}
	p = startProgram(t, buildProgram(t), "-config", settings, "-data", data)
	dialFolder(t, data).Ask("#shutdown", "@status 0", `@mess #warning "the server is stopping (Host)"`)
	if code := p.exitCode(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
}

// TestSignalWhileRestarting: a SIGTERM ends the program, also where it comes while
// the one program gives way to the other. One that the system loses in the middle of
// that is as if it had not been sent.
func TestSignalWhileRestarting(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	path, settings := buildProgram(t), writeSettings(t, programSettings)
	for range 2 {
		data := t.TempDir()
		p := startProgram(t, path, "-config", settings, "-data", data)
		dialFolder(t, data).Ask("#restart", "@status 0", `@mess #warning "the server is starting anew (Host)"`)
		for !strings.Contains(p.logged(), "msg=stopped") {
			runtime.Gosched()
		}
		const lost = 5 * time.Second
		again := time.AfterFunc(lost, func() { _ = p.cmd.Process.Signal(syscall.SIGTERM) })
		if code := p.terminate(); code != exitDone && code != -1 { // -1: before it listens for the signal
			t.Errorf("exit code %d", code)
		}
		again.Stop()
	}
}
