package datadir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// StrangeFileError says that something in a data folder is no file of the server's.
// A link there may lead root to any file of the machine.
type StrangeFileError struct{ Path, What string }

func (e *StrangeFileError) Error() string {
	return fmt.Sprintf("%s is %s, where only a regular file of one name may be; look where it comes from, and remove it", e.Path, e.What)
}

// Open opens a file in a data folder, or makes it where flag says so. It follows no
// link, waits for no FIFO, and refuses what has a second name, or is no file.
func Open(path string, flag int) (*os.File, error) {
	if err := Check(path); err != nil { // without a look, opening a device might do something
		return nil, err
	}
	file, err := os.OpenFile(path, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if errors.Is(err, syscall.ELOOP) {
		return nil, &StrangeFileError{path, "a symbolic link"}
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil {
		err = judge(path, info)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// ReadFile reads all of a file in a data folder, which it opens as Open does.
func ReadFile(path string) ([]byte, error) {
	file, err := Open(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(file)
}

// Check refuses what Open would refuse, for files that somebody else opens by their
// names. One that is not there is none of its business.
func Check(paths ...string) error {
	for _, path := range paths {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = judge(path, info)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// judge refuses everything but a regular file that has no name besides this one.
func judge(path string, info fs.FileInfo) error {
	if what := kind(info); what != "" {
		return &StrangeFileError{path, what}
	}
	if info.Sys().(*syscall.Stat_t).Nlink > 1 && !setAside(path, info) {
		return &StrangeFileError{path, "a file with a second name (a hard link)"}
	}
	return nil
}

// setAside reports whether the second name of a file is one that a restore gives to
// the database that was there; a restore that was cut off leaves both.
func setAside(path string, info fs.FileInfo) bool {
	kept, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.old-*"))
	if err != nil || info.Sys().(*syscall.Stat_t).Nlink > 2 {
		return false
	}
	for _, name := range kept {
		other, err := os.Lstat(name)
		if err == nil && strings.HasPrefix(filepath.Base(name), "homeroom.db") && name != path && os.SameFile(other, info) {
			return true
		}
	}
	return false
}

// NoFileError says that what the caller named is no file but a FIFO, a device, a
// folder.
type NoFileError struct{ Path, What string }

func (e *NoFileError) Error() string {
	return fmt.Sprintf("%s is %s, not a file; name a file", e.Path, e.What)
}

// OpenNamed opens, for reading, a file that the caller named himself: through links,
// but it must be a file. Opening anything else might wait for ever.
func OpenNamed(path string) (*os.File, error) {
	if err := CheckNamed(path); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil {
		err = named(path, info)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// CheckNamed refuses what OpenNamed would refuse, without opening it.
func CheckNamed(path string) error {
	if path == "-" {
		return errors.New("- is no file, and a stream cannot be used; name a file (./- where it is called so)")
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return named(path, info)
}

// named refuses everything but a regular file.
func named(path string, info fs.FileInfo) error {
	if what := kind(info); what != "" {
		return &NoFileError{path, what}
	}
	return nil
}

// kind says what something is that is no regular file; "": it is one.
func kind(info fs.FileInfo) string {
	switch info.Mode().Type() {
	case 0:
		return ""
	case fs.ModeSymlink:
		return "a symbolic link"
	case fs.ModeNamedPipe:
		return "a FIFO"
	case fs.ModeSocket:
		return "a socket"
	case fs.ModeDir:
		return "a folder"
	}
	return "a device"
}
