package datadir

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
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

// TestWriteFile: under a name is the old file or the new one, whole, and nothing else
// is left in the folder.
func TestWriteFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	want := func(content string, mode fs.FileMode) {
		t.Helper()
		text, err := os.ReadFile(path)
		info, _ := os.Stat(path)
		if err != nil || string(text) != content || info.Mode() != mode {
			t.Errorf("%q, %v, %v; want %q, %v", text, info.Mode(), err, content, mode)
		}
		if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
			t.Errorf("in the folder: %v, %v", files, err)
		}
	}
	write := func(content io.Reader, mode fs.FileMode) error { return WriteFile(path, content, mode) }
	if err := write(strings.NewReader("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	want("first", 0o600)
	broken := errors.New("broken")
	if err := write(io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)), 0o600); !errors.Is(err, broken) {
		t.Errorf("a broken source: %v", err)
	}
	want("first", 0o600)
	if err := os.WriteFile(path+".tmp", []byte("of a killed process"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := write(strings.NewReader("second"), 0o755); err != nil {
		t.Fatal(err)
	}
	want("second", 0o755)
	folder := filepath.Join(t.TempDir(), "folder")
	if err := os.MkdirAll(filepath.Join(folder, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(folder, strings.NewReader("text"), 0o600); err == nil {
		t.Error("a folder is replaced by a file")
	}
	if _, err := os.Stat(folder + ".tmp"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what failed is left: %v", err)
	}
}

// TestRunning: a folder is found while it is locked and has a socket in it.
func TestRunning(t *testing.T) {
	t.Parallel()
	folder, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	found := func(want bool) {
		t.Helper()
		if got := Running("socket"); slices.Contains(got, folder) != want {
			t.Errorf("found is %v, want %v of %s", got, want, folder)
		}
	}
	lock, err := Lock(folder)
	if err != nil {
		t.Fatal(err)
	}
	found(false)
	if err := syscall.Mknod(filepath.Join(folder, "socket"), syscall.S_IFSOCK|0o600, 0); err != nil {
		t.Fatal(err)
	}
	found(true)
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	found(false)
}
