package test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"homeroom/test/wire"
)

// TestNotify: the shipped program tells a service manager that it is ready, that
// it is well, and that it stops; in the file system's names and in abstract ones.
func TestNotify(t *testing.T) {
	for what, name := range map[string]string{
		"path": filepath.Join(t.TempDir(), "notify"), "abstract": fmt.Sprintf("@homeroom-test-%d", os.Getpid()),
	} {
		t.Run(what, func(t *testing.T) {
			m := wire.NewManager(t, name)
			t.Setenv("NOTIFY_SOCKET", name)
			t.Setenv("WATCHDOG_USEC", "300000")
			p := startProgram(t, buildProgram(t), "-config", writeSettings(t, programSettings), "-data", t.TempDir())
			if got := m.Heard(); got != "READY=1" {
				t.Fatalf("first %q", got)
			}
			for range 3 {
				if got := m.Heard(); got != "WATCHDOG=1" {
					t.Fatalf("then %q", got)
				}
			}
			if code := p.terminate(); code != exitDone {
				t.Errorf("exit code %d", code)
			}
			for got := m.Heard(); got != "STOPPING=1"; got = m.Heard() {
				if got != "WATCHDOG=1" {
					t.Fatalf("at the end %q", got)
				}
			}
		})
	}
}
