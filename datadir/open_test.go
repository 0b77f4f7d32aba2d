package datadir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestOpen takes a file of one name, and nothing that leads elsewhere or would wait.
func TestOpen(t *testing.T) {
	t.Parallel()
	folder, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	at := func(name string) string { return filepath.Join(folder, name) }
	err := errors.Join(os.WriteFile(outside, []byte("text"), 0o600), os.WriteFile(at("file"), []byte("text"), 0o600),
		os.Symlink(outside, at("symbolic")), os.Symlink(at("nothing"), at("dangling")), os.Link(outside, at("hard")),
		syscall.Mkfifo(at("fifo"), 0o600), os.Mkdir(at("folder"), 0o700), os.Symlink("/dev/null", at("device")),
		os.WriteFile(at("homeroom.db"), nil, 0o600), os.Link(at("homeroom.db"), at("homeroom.db.old-1")))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"file": "", "homeroom.db": "", "fresh": "", "symbolic": "a symbolic link", "dangling": "a symbolic link", "hard": "a hard link",
		"fifo": "a FIFO", "folder": "a folder", "device": "a symbolic link",
	} {
		for _, flag := range []int{os.O_RDWR | os.O_CREATE, os.O_WRONLY | os.O_APPEND | os.O_CREATE} {
			file, err := Open(at(name), flag)
			var strange *StrangeFileError
			switch {
			case err == nil && want == "":
				file.Close()
			case err == nil:
				t.Errorf("%s is opened", name)
			case !errors.As(err, &strange) || !strings.Contains(err.Error(), want) || want == "":
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
		if err := Check(at(name)); (err == nil) != (want == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if text, err := ReadFile(at("file")); err != nil || string(text) != "text" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := os.Lstat(at("nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a dangling link led to a new file: %v", err)
	}
	for name, want := range map[string]bool{"file": true, "symbolic": true, "hard": true, "fifo": false, "device": false, "folder": false} {
		file, err := OpenNamed(at(name))
		if (err == nil) != want {
			t.Errorf("named by the caller: %s: %v", name, err)
		}
		file.Close()
	}
}

// TestGiveFiles gives what is a folder's own, and nothing that leads outside of it.
func TestGiveFiles(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	folder, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	at := func(name string) string { return filepath.Join(folder, name) }
	err := errors.Join(os.WriteFile(outside, nil, 0o600), os.WriteFile(at("file"), nil, 0o600),
		os.Symlink(outside, at("symbolic")), os.Link(outside, at("hard")), syscall.Mkfifo(at("fifo"), 0o600))
	if err == nil {
		err = GiveFiles(folder, 65534, 65534)
	}
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]uint32{at("file"): 65534, outside: 0, at("symbolic"): 0, at("fifo"): 0} {
		if info, err := os.Lstat(path); err != nil || info.Sys().(*syscall.Stat_t).Uid != want {
			t.Errorf("%s: %v, want user %d", path, err, want)
		}
	}
}
