package datadir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// LockFile is the name of the file in a data folder that is locked. It holds the
// number of the process that has the folder.
const LockFile = "lock"

// Locked is a data folder that this process has; the lock ends with the process.
type Locked struct {
	file *os.File
	Was  fs.FileMode // the mode of a folder that others could enter; 0: none could
}

// InUseError says that another process has the data folder.
type InUseError struct{ Process, Folder string }

func (e *InUseError) Error() string {
	return fmt.Sprintf("another homeroom, process %s, uses the data folder %s; stop it first, or give this one another folder with -data",
		e.Process, e.Folder)
}

// Lock makes the data folder where it is missing and takes it for this process.
// It returns an InUseError if another process has it.
func Lock(folder string) (*Locked, error) {
	if err := Make(folder); err != nil {
		return nil, fmt.Errorf("cannot make the data folder: %w", err)
	}
	was, err := Tighten(folder)
	if err != nil {
		return nil, err
	}
	file, err := Open(filepath.Join(folder, LockFile), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("cannot write to the data folder: %w", err)
	}
	if err := take(file); err != nil {
		defer file.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot lock the data folder %s: %w", folder, err)
		}
		process, _ := io.ReadAll(file) // the error is that somebody has it; who, is a help
		return nil, &InUseError{strings.TrimSpace(string(process)), folder}
	}
	// Over what is there, which needs no space; on a full disk the number may be missing.
	number := fmt.Appendf(nil, "%d\n", os.Getpid())
	_, err = file.WriteAt(number, 0)
	if err = errors.Join(err, file.Truncate(int64(len(number)))); err != nil && !errors.Is(err, syscall.ENOSPC) {
		file.Close()
		return nil, fmt.Errorf("cannot write to the data folder: %w", err)
	}
	return &Locked{file, was}, nil
}

// take locks the file. It tries for a moment, because User holds the lock while it
// looks.
func take(file *os.File) error {
	const tries, pause = 5, 20 * time.Millisecond
	for try := 1; ; try++ {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if try == tries || !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		time.Sleep(pause)
	}
}

// Release gives the folder back, with all files in it to its owner. It unlocks
// rather than only closes: a child process that is just being started still shares
// the open file, and with it the lock.
func (l *Locked) Release() error {
	err := GiveToOwner(filepath.Dir(l.file.Name()))
	return errors.Join(err, syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN), l.file.Close())
}

// User returns the number of the process that has a data folder, "" if none has.
func User(folder string) (process string, err error) {
	path := filepath.Join(folder, LockFile)
	file, err := Open(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot see whether a server runs: %w", err)
	}
	defer file.Close()
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if err == nil {
		return "", nil
	}
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return "", fmt.Errorf("cannot see whether a server runs: locking %s: %w", path, err)
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return "", fmt.Errorf("cannot see which process runs the server: %w", err)
	}
	if process = strings.TrimSpace(string(text)); process == "" {
		process = "unknown" // it is about to write it
	}
	return process, nil
}

// Running returns the data folders of this user's that running processes of this
// user's have, where these listen on a socket of that name in them. What cannot be
// seen is left out.
func Running(socket string) (folders []string) {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		folders = append(folders, lockedBy(filepath.Base(process), socket)...)
	}
	slices.Sort(folders)
	return slices.Compact(folders)
}

// lockedBy is Running for one process.
func lockedBy(process, socket string) (folders []string) {
	if !own(filepath.Join("/proc", process)) {
		return nil
	}
	files, _ := filepath.Glob(filepath.Join("/proc", process, "fd", "*"))
	for _, file := range files {
		path, err := os.Readlink(file)
		if err != nil || filepath.Base(path) != LockFile {
			continue
		}
		folder := filepath.Dir(path)
		info, err := os.Lstat(filepath.Join(folder, socket))
		user, errUser := User(folder)
		if err == nil && info.Mode()&fs.ModeSocket != 0 && errUser == nil && user == process && own(folder) {
			folders = append(folders, folder)
		}
	}
	return folders
}

// own reports whether a file belongs to the user of this process.
func own(path string) bool {
	info, err := os.Stat(path)
	return err == nil && int(info.Sys().(*syscall.Stat_t).Uid) == os.Geteuid()
}
