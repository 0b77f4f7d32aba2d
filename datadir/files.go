// Package datadir takes care of a folder that a server keeps its data in.
//
// One process at a time has the folder: Lock takes it, Release gives it back, and
// User finds out who has it, without disturbing anybody.
//
// Files in it are whole. WriteFile writes one under another name first and renames
// it once it is on the disk, so that after a power cut there is the old file or the
// new one. Make and Rename sync the folder as well: a file is lost with its name.
//
// The folder is its owner's alone: Lock has others out of one that was open. Its owner
// may still be somebody whom root does not trust. So Open and ReadFile, which every
// file there is opened with, follow no link; what SQLite opens by its name, Check has
// looked at before. Above all root goes on as the owner (BecomeOwner) but for what it
// names itself (Named). What root makes in the folder all the same, GiveToOwner gives
// to the owner.
package datadir

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Make makes a folder, and those above it that are missing, and syncs their names:
// what is stored in a folder is lost with its name.
func Make(folder string) error {
	if info, err := os.Stat(folder); err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: folder, Err: syscall.ENOTDIR}
		}
		return nil
	}
	above := filepath.Dir(folder)
	if above != folder {
		if err := Make(above); err != nil {
			return err
		}
	}
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return Sync(above)
}

// WriteFile writes a file so that under its name there is always a whole one: what
// had the name stays if that fails. Nobody else may read it before it has its mode.
func WriteFile(path string, content io.Reader, mode fs.FileMode) error {
	fresh := path + ".tmp"
	if err := Create(fresh, content, mode); err != nil {
		return err
	}
	if err := Rename(fresh, path); err != nil {
		_ = os.Remove(fresh) // gone where only the folder could not be synced
		return err
	}
	return nil
}

// Create writes a new file, in place of what a killed process may have left under
// the name, and syncs it. Nothing is left of it if that fails.
func Create(path string, content io.Reader, mode fs.FileMode) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // it follows no link
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	if err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// Rename gives a file its name once all of it is on the disk. If that fails, the file
// that had the name stays.
func Rename(fresh, name string) error {
	if err := Sync(fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, name); err != nil {
		return err
	}
	return Sync(filepath.Dir(name))
}

// Sync brings the content of a file, or the names in a folder, to the disk.
func Sync(path string) error {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it waits for no FIFO
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
