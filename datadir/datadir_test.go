package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// TestLock is a folder that one has at a time, and that others see is taken.
func TestLock(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "not", "there", "yet")
	user := func(want string) {
		t.Helper()
		if got, err := User(folder); err != nil || got != want {
			t.Errorf("User: %q, %v, want %q", got, err, want)
		}
	}
	user("")
	lock, err := Lock(folder)
	if err != nil {
		t.Fatal(err)
	}
	own := strconv.Itoa(os.Getpid())
	user(own)
	var used *InUseError
	if _, err := Lock(folder); !errors.As(err, &used) || used.Process != own || used.Folder != folder {
		t.Errorf("locked twice: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
	user("")
	if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info.Mode(), err)
	}
}

// TestUserDisturbsNobody: a server that starts while somebody looks is not refused.
func TestUserDisturbsNobody(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = User(folder) // whatever it sees
			}
		}
	}()
	for range 50 {
		lock, err := Lock(folder)
		if err != nil {
			t.Error(err)
			break
		}
		if err := lock.Release(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	<-ended
}

// TestMake refuses a file in the way, and takes a folder that is there.
func TestMake(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	if err := errors.Join(Make(folder), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below")} {
		if err := Make(path); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
