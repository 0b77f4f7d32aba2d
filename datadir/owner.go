package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// GiveToOwner gives what root has made in a data folder to the user that the folder
// belongs to: after `sudo homeroom restore` the service must be able to read it.
// For anybody but root it does nothing.
func GiveToOwner(folder string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot see whose the data folder is: %w", err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	return GiveFiles(folder, int(owner.Uid), int(owner.Gid))
}

// GiveFiles gives the files in a folder to a user. A link, or a file that has
// another name too, is left: it may lead to something outside of the folder.
func GiveFiles(folder string, user, group int) error {
	files, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("cannot see what is in the data folder: %w", err)
	}
	for _, file := range files {
		info, err := file.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was there for a moment only
		}
		if err != nil {
			return fmt.Errorf("cannot see whose a file is: %w", err)
		}
		stat := info.Sys().(*syscall.Stat_t)
		if !info.Mode().IsRegular() || stat.Nlink != 1 || int(stat.Uid) == user && int(stat.Gid) == group {
			continue
		}
		err = os.Lchown(filepath.Join(folder, file.Name()), user, group)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot give a file to the user of the service: %w", err)
		}
	}
	return nil
}
