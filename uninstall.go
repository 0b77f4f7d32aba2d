package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"homeroom/datadir"
)

// errNotInstalled is that there is no service to do something with.
var errNotInstalled = errors.New("the service is not installed; to install it: sudo homeroom install")

// removal is something that a purge removes.
type removal struct {
	what, path string // path "": what is no file
	remove     func() error
}

// uninstall takes the service away and keeps what it has written.
func (m *machine) uninstall() error {
	if unit := m.packaged(); unit != "" {
		return fmt.Errorf("a package of the system has installed the service (%s); remove that package", unit)
	}
	if m.installed() {
		if err := m.removeUnit(); err != nil {
			return err
		}
	}
	return m.removeFile(m.at(serviceProgram))
}

// removeUnit stops the service and takes it from the service manager.
func (m *machine) removeUnit() error {
	service, err := m.connect(m.ownScript(serviceData))
	if err != nil {
		return fmt.Errorf("cannot reach the service manager: %w", err)
	}
	if err := service.Stop(); err != nil {
		return fmt.Errorf("cannot stop the service: %w", err)
	}
	if err := service.Uninstall(); err != nil {
		return fmt.Errorf("cannot remove the service: %w", err)
	}
	if m.platform == onSysV { // the library leaves its links
		links, _ := filepath.Glob(m.at("/etc/rc?.d/[SK]??" + serviceName))
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
func (m *machine) removeFile(path string) error {
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

// leftovers is what the service has written, and its user: what a purge removes.
func (m *machine) leftovers() (found []removal) {
	cfg, err := m.serviceSettings()
	if err != nil {
		cfg = defaultConfig()
		cfg.Server.Data = serviceData
	}
	add := func(what, path string, remove func(path string) error) {
		if exists(path) {
			found = append(found, removal{what, path, func() error { return remove(path) }})
		}
	}
	data := m.at(serviceData)
	if real, err := filepath.EvalSymlinks(data); err == nil && isLink(data) {
		add("the data and its key", real, removeData)
	}
	add("the data and its key", data, removeData)
	if other := cfg.Server.Data; other != serviceData && m.owns(other) {
		add("the data and its key", m.at(other), removeData)
	}
	if filepath.IsAbs(cfg.Server.Key) {
		add("the key", m.at(cfg.Server.Key), os.Remove)
	}
	add("the settings", m.at(filepath.Dir(installedSettings)), os.RemoveAll)
	add("the log", m.at(filepath.Dir(serviceLog)), os.RemoveAll)
	if user, ok := m.user(); ok && user.home == serviceData {
		found = append(found, removal{"the user and the group " + serviceName, "", m.removeUser})
	}
	return found
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

// owns says whether a folder is the service's user's: another one is left alone.
func (m *machine) owns(folder string) bool {
	info, err := os.Stat(m.at(folder))
	user, ok := m.user()
	return err == nil && ok && int(info.Sys().(*syscall.Stat_t).Uid) == user.id
}

// purge removes what an uninstalled service has left.
func (m *machine) purge(found []removal) error {
	for _, r := range found {
		if err := r.remove(); err != nil {
			return fmt.Errorf("cannot remove %s: %w", r.what, err)
		}
		m.say("removed %s%s", r.what, r.where())
	}
	return nil
}

// where is a removal's path, to go behind what it is.
func (r removal) where() string {
	if r.path == "" {
		return ""
	}
	return ": " + r.path
}
