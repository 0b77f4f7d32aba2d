package test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestServiceNeedsRoot: users other than root are told what to type, and nothing is done.
func TestServiceNeedsRoot(t *testing.T) {
	t.Parallel()
	path := buildProgram(t)
	credential := &syscall.Credential{Uid: 65534, Gid: 65534}
	if os.Geteuid() != 0 {
		credential = nil
	} else if err := errors.Join(os.Chmod(filepath.Dir(filepath.Dir(path)), 0o755), os.Chmod(filepath.Dir(path), 0o777), os.Chmod(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"install", "uninstall", "start", "stop", "restart"} {
		cmd := exec.Command(path, verb)
		cmd.Env = append(os.Environ(), "GOCOVERDIR="+filepath.Dir(path)) // where it may write
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
		out, err := cmd.CombinedOutput()
		want := "homeroom: this needs the rights of root: sudo homeroom " + verb + "\n"
		if string(out) != want || cmd.ProcessState.ExitCode() != exitFailed {
			t.Errorf("%s: %v: %q, want %q", verb, err, out, want)
		}
	}
}
