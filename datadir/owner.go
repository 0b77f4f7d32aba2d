package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// BecomeOwner has root go on as the user that a data folder belongs to: what root
// makes there is then that user's, and whatever the user puts there leads root no
// further than the user could go. For anybody but root, and where the folder is
// root's own or not there, it does nothing; nor where its owner cannot get to it,
// who then cannot put anything there either.
func BecomeOwner(folder string) error {
	user, group, err := ownerOf(folder)
	if err != nil || os.Geteuid() != 0 || user == 0 {
		return err
	}
	if err := GiveFiles(folder, user, group); err != nil {
		return err
	}
	if !reaches(user, group, folder) {
		return nil
	}
	if err := syscall.Setgroups([]int{group}); err != nil {
		return fmt.Errorf("cannot leave root's groups: %w", err)
	}
	return become(user, group)
}

// reaches reports whether a user can get to a folder. It asks with the user's rights,
// which only its own thread takes on.
func reaches(user, group int, folder string) bool {
	whole, err := filepath.Abs(folder)
	if err != nil {
		return false
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, errGroup := unix.SetfsgidRetGid(group)
	_, errUser := unix.SetfsuidRetUid(user)
	_, err = os.Stat(filepath.Join(whole, LockFile))
	_, backUser := unix.SetfsuidRetUid(0)
	_, backGroup := unix.SetfsgidRetGid(os.Getegid())
	return errors.Join(errGroup, errUser, backUser, backGroup) == nil && !errors.Is(err, fs.ErrPermission)
}

// become changes whose rights the process has, of those that it may have.
func become(user, group int) error {
	back := syscall.Setresuid(-1, 0, -1) // only root may change the group
	if err := errors.Join(back, syscall.Setresgid(-1, group, -1), syscall.Setresuid(-1, user, -1)); err != nil {
		return fmt.Errorf("cannot go on as user %d: %w", user, err)
	}
	return nil
}

// Named does something with a file that the caller named himself: with the rights
// that the program was called with, unless the folder around it is the data folder's
// owner's, too.
func Named(path string, do func() error) error {
	acting := os.Geteuid()
	if acting == os.Getuid() || os.Getuid() != 0 {
		return do()
	}
	if owner, _, err := ownerOf(filepath.Dir(path)); err == nil && owner == acting {
		return do()
	}
	group := os.Getegid()
	if err := become(0, os.Getgid()); err != nil {
		return err
	}
	err := do()
	return errors.Join(err, become(acting, group))
}

// ownerOf says whose a folder is; root's where it is not there.
func ownerOf(folder string) (user, group int, err error) {
	info, err := os.Stat(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("cannot see whose the data folder is: %w", err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	return int(stat.Uid), int(stat.Gid), nil
}

// GiveToOwner gives what root has made in a data folder to the user that the folder
// belongs to: after a start as root the service must be able to read it. For anybody
// but root it does nothing.
func GiveToOwner(folder string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	user, group, err := ownerOf(folder)
	if _, gone := os.Stat(folder); err != nil || errors.Is(gone, fs.ErrNotExist) {
		return err
	}
	return GiveFiles(folder, user, group)
}

// GiveFiles gives the files in a folder to a user. A link, or a file that has
// another name too, is left: it may lead to something outside of the folder.
func GiveFiles(folder string, user, group int) error {
	files, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("cannot see what is in the data folder: %w", err)
	}
	for _, file := range files {
		err := giveFile(filepath.Join(folder, file.Name()), user, group)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it was there for a moment only
			return fmt.Errorf("cannot give a file to the user of the service: %w", err)
		}
	}
	return nil
}

// giveFile gives one file to a user. It holds on to what it has looked at: nobody can
// put another file in its place meanwhile.
func giveFile(path string, user, group int) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG || stat.Nlink != 1 || int(stat.Uid) == user && int(stat.Gid) == group {
		return nil
	}
	if err := unix.Fchownat(fd, "", user, group, unix.AT_EMPTY_PATH); err != nil {
		return &fs.PathError{Op: "chown", Path: path, Err: err}
	}
	return nil
}

// Tighten keeps everybody but its owner out of a data folder that was there already.
// It refuses one that is somebody else's and open to others, and one that was used for
// something else, which might need to be open. was is what it has changed.
func Tighten(folder string) (was fs.FileMode, err error) {
	dir, err := os.OpenFile(folder, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	info, err := dir.Stat()
	if err != nil || info.Mode().Perm()&0o077 == 0 {
		return 0, err
	}
	why, err := whyOpen(dir, info)
	if err == nil && why == "" {
		if err = dir.Chmod(info.Mode() &^ 0o077); errors.Is(err, fs.ErrPermission) {
			err = nil // as where it changes nothing
		}
		if after, failed := dir.Stat(); failed == nil && after.Mode().Perm()&0o077 != 0 {
			why = "that cannot be changed (a FAT disk must be mounted with umask=077)"
		}
	}
	if err == nil && why != "" {
		err = fmt.Errorf("others may enter or write the data folder %s (mode %04o), and %s; name another folder, or do: chmod 700 %s",
			folder, info.Mode().Perm(), why, folder)
	}
	return info.Mode().Perm(), err
}

// ownNames are what a server makes in its folder that does not begin with its name.
var ownNames = []string{LockFile, "control.sock", "tls.pem", "last-backup"}

// whyOpen says why a folder that is open to others is not to be closed; "": it may be.
func whyOpen(dir *os.File, info fs.FileInfo) (why string, err error) {
	owner := info.Sys().(*syscall.Stat_t).Uid
	if me := os.Geteuid(); me != 0 && int(owner) != me {
		return fmt.Sprintf("it is user %d's", owner), nil
	}
	if info.Mode()&fs.ModeSticky != 0 {
		return "it is meant for everybody", nil
	}
	files, err := dir.ReadDir(-1)
	if err != nil {
		return "", err
	}
	known := len(files) == 0
	for _, file := range files {
		known = known || strings.HasPrefix(file.Name(), "homeroom.") || slices.Contains(ownNames, file.Name())
		stat, err := file.Info()
		if err != nil {
			continue // it is gone
		}
		if user := stat.Sys().(*syscall.Stat_t).Uid; user != owner && user != 0 {
			return fmt.Sprintf("%s in it is user %d's", file.Name(), user), nil
		}
	}
	if !known {
		return "it holds other things", nil
	}
	return "", nil
}
