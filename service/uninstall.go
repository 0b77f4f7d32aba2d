package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"homeroom/datadir"
)

// Leftover is something that the service has written, or its user.
type Leftover struct {
	What, Path string // Path "": it is no file
	remove     func() error
}

func (l Leftover) String() string {
	if l.Path == "" {
		return l.What
	}
	return l.What + ": " + l.Path
}

// Uninstall takes the service away and keeps what it has written.
func (m *Machine) Uninstall(s Settings) error {
	stays := m.leftovers(s)
	if err := m.uninstall(); err != nil {
		return err
	}
	for _, l := range stays {
		m.say("kept %s", l)
	}
	m.say("To remove that too, for ever, run the program's file as root with: uninstall -purge")
	return nil
}

// Purge takes the service away with all that it has written, if agree returns no
// error. It also removes what an earlier Uninstall has kept.
func (m *Machine) Purge(s Settings, agree func([]Leftover) error) error {
	found := m.leftovers(s)
	if len(found) > 0 {
		if err := agree(found); err != nil {
			return err
		}
	}
	if err := m.uninstall(); err != nil && (len(found) == 0 || !errors.Is(err, ErrNotInstalled)) {
		return err
	}
	for _, l := range found {
		if err := l.remove(); err != nil {
			return fmt.Errorf("cannot remove %s: %w", l.What, err)
		}
		m.say("removed %s", l)
	}
	return nil
}

// uninstall takes the service from the service manager, and its program away.
func (m *Machine) uninstall() error {
	if unit := m.packaged(); unit != "" {
		return fmt.Errorf("a package of the system has installed the service (%s); remove that package", unit)
	}
	if !m.installed() && !exists(m.at(programFile)) {
		return ErrNotInstalled
	}
	if m.installed() {
		if err := m.removeUnit(); err != nil {
			return err
		}
	}
	return m.removeFile(m.at(programFile))
}

// removeUnit stops the service and takes it from the service manager.
func (m *Machine) removeUnit() error {
	manager, err := m.connect(m.ownScript(Data))
	if err != nil {
		return fmt.Errorf("cannot reach the service manager: %w", err)
	}
	if err := manager.Stop(); err != nil {
		return fmt.Errorf("cannot stop the service: %w", err)
	}
	if err := manager.Uninstall(); err != nil {
		return fmt.Errorf("cannot remove the service: %w", err)
	}
	if m.platform == onSysV { // the library leaves its links
		links, _ := filepath.Glob(m.at("/etc/rc?.d/[SK]??" + homeroom))
		for _, link := range links {
			if err := os.Remove(link); err != nil {
				return fmt.Errorf("cannot remove a link to the service: %w", err)
			}
		}
	}
	m.say("stopped the service, and removed %s", m.unitFile())
	return nil
}

// removeFile removes a file that may be there.
func (m *Machine) removeFile(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot remove what was installed: %w", err)
	}
	m.say("removed %s", path)
	return nil
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// removeData removes a data folder, if nobody uses it.
func removeData(path string) error {
	if user, err := datadir.User(path); err != nil || user != "" {
		return errors.Join(err, fmt.Errorf("process %s uses %s; end that first", user, path))
	}
	return os.RemoveAll(path)
}

// owns reports whether a folder belongs to the service's user: another one is left
// alone.
func (m *Machine) owns(folder string) bool {
	info, err := os.Stat(m.at(folder))
	user, ok := m.user()
	return err == nil && ok && int(info.Sys().(*syscall.Stat_t).Uid) == user.id
}

// leftovers finds everything that the service has written, and its user.
func (m *Machine) leftovers(s Settings) (found []Leftover) {
	add := func(what, path string, remove func(path string) error) {
		if exists(path) {
			found = append(found, Leftover{what, path, func() error { return remove(path) }})
		}
	}
	data := m.at(Data)
	if real, err := filepath.EvalSymlinks(data); err == nil && isLink(data) {
		add("the data and its key", real, removeData)
	}
	add("the data and its key", data, removeData)
	if other := s.Data; other != "" && other != Data && m.owns(other) {
		add("the data and its key", m.at(other), removeData)
	}
	if filepath.IsAbs(s.Key) {
		add("the key", m.at(s.Key), os.Remove)
	}
	add("the settings", m.at(filepath.Dir(SettingsFile)), os.RemoveAll)
	add("the log", m.at(filepath.Dir(LogFile)), os.RemoveAll)
	if user, ok := m.user(); ok && user.home == Data {
		found = append(found, Leftover{"the user and the group " + homeroom, "", m.removeUser})
	}
	return found
}
