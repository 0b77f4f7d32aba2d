package service

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"homeroom/datadir"
)

// Install makes the program a service of the machine, or upgrades the one that is
// there. What it finds it keeps.
func (m *Machine) Install(s Settings, start bool) error {
	if unit := m.packaged(); unit != "" {
		return fmt.Errorf("a package of the system has installed the service (%s); upgrade that package", unit)
	}
	if err := m.checkData(s.Data); err != nil {
		return err
	}
	upgrade := m.installed()
	manager, err := m.connect(m.ownScript(s.Data))
	if err != nil {
		return fmt.Errorf("cannot reach the service manager: %w", err)
	}
	for _, step := range []func() error{
		m.makeUser,
		func() error { return m.makeData(s.Data) },
		func() error { return m.writeSettings(s.Text) },
		m.copyProgram,
		func() error { return m.writeUnit(manager, s.Data) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	if !start {
		m.say("Homeroom is installed and starts at every boot. To start it now: sudo homeroom start")
		return nil
	}
	if err := m.startAfresh(manager, s, upgrade); err != nil {
		return err
	}
	m.sayNext(s)
	return nil
}

// checkData refuses a data folder that the service could not use.
func (m *Machine) checkData(data string) error {
	path := m.at(SettingsFile)
	if !filepath.IsAbs(data) {
		return fmt.Errorf("%s: server.data must be a whole path for a service, like %q, not %q", path, Data, data)
	}
	for _, hidden := range []string{"/home", "/root", "/run/user", "/tmp", "/var/tmp"} {
		if inside, err := filepath.Rel(hidden, data); err == nil && filepath.IsLocal(inside) {
			return fmt.Errorf("%s: server.data must not be under %s, which the service does not see", path, hidden)
		}
	}
	return nil
}

// makeData makes the data folder, for the service's user alone.
func (m *Machine) makeData(folder string) error {
	user, ok := m.user()
	if !ok {
		return fmt.Errorf("the user %s is not there, although it was made", homeroom)
	}
	path := m.at(folder)
	if info, err := os.Stat(path); err == nil && folder != Data {
		if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != user.id {
			return fmt.Errorf("the data folder %s is not the service's; if it is to be: sudo chown -R %s: %s", path, homeroom, path)
		}
	}
	err := makeOpenFolder(filepath.Dir(path))
	if err == nil {
		err = datadir.Make(path)
	}
	if err == nil {
		err = ownFolder(path, user)
	}
	if err != nil {
		return fmt.Errorf("cannot make the data folder: %w", err)
	}
	return datadir.GiveFiles(path, user.id, user.group)
}

// ownFolder makes a folder a user's alone.
func ownFolder(path string, user systemUser) error {
	dir, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return errors.Join(dir.Chmod(0o700), dir.Chown(user.id, user.group))
}

// makeOpenFolder makes a folder, and those above it that are missing, so that the
// service's user can go through all of them.
func makeOpenFolder(path string) error {
	var missing []string
	for above := path; !exists(above); above = filepath.Dir(above) {
		missing = append(missing, above)
	}
	err := datadir.Make(path)
	for _, made := range missing {
		err = errors.Join(err, os.Chmod(made, 0o755))
	}
	return err
}

// writeSettings writes the settings file where there is none.
func (m *Machine) writeSettings(text string) error {
	path := m.at(SettingsFile)
	if exists(path) {
		m.say("kept  %s", path)
		return nil
	}
	if err := writeWhole(path, strings.NewReader(text), 0o644); err != nil {
		return fmt.Errorf("cannot write the settings: %w", err)
	}
	m.say("wrote %s", path)
	return nil
}

// copyProgram puts the program that runs now in its place.
func (m *Machine) copyProgram() error {
	path := m.at(programFile)
	from, err := os.Open(m.self)
	if err != nil {
		return fmt.Errorf("cannot read this program: %w", err)
	}
	defer from.Close()
	own, err := from.Stat()
	if err != nil {
		return fmt.Errorf("cannot read this program: %w", err)
	}
	if there, err := os.Stat(path); err == nil && os.SameFile(own, there) {
		m.say("kept  %s", path)
		return nil
	}
	if err := writeWhole(path, from, 0o755); err != nil {
		return fmt.Errorf("cannot write the program: %w", err)
	}
	m.say("wrote %s", path)
	return nil
}

// writeWhole writes a file whole, in a folder that everybody can go through.
func writeWhole(path string, content io.Reader, mode os.FileMode) error {
	if err := makeOpenFolder(filepath.Dir(path)); err != nil {
		return err
	}
	return datadir.WriteFile(path, content, mode)
}

// writeUnit tells the service manager of the service, which is to start at every boot.
// The library does not write over an old script; so that the machine is never
// without one, it is replaced here.
func (m *Machine) writeUnit(manager manager, data string) error {
	path := m.unitFile()
	upgrade := exists(path)
	var err error
	if upgrade {
		err = writeWhole(path, strings.NewReader(m.ownScript(data)), map[bool]os.FileMode{true: 0o644, false: 0o755}[m.platform == onSystemd])
	} else {
		err = manager.Install()
	}
	if err == nil {
		err = m.enable(upgrade)
	}
	if err == nil {
		err = errors.Join(datadir.Sync(path), datadir.Sync(filepath.Dir(path)))
	}
	if err != nil {
		return fmt.Errorf("cannot install the service: %w", err)
	}
	m.say("wrote %s", path)
	return nil
}

// enable has the service start at boot, where the library leaves that out.
func (m *Machine) enable(upgrade bool) error {
	switch {
	case m.platform == onSystemd && upgrade:
		return errors.Join(m.run("systemctl", "daemon-reload"), m.run("systemctl", "--quiet", "enable", homeroom+".service"))
	case m.platform == onOpenRC && upgrade:
		return m.run("rc-update", "add", homeroom)
	case m.platform == onSysV && m.has("update-rc.d"): // the library's links have no order
		return m.run("update-rc.d", homeroom, "defaults")
	}
	return nil
}

// startAfresh starts the service, or starts it anew, and waits until it serves.
func (m *Machine) startAfresh(manager manager, s Settings, again bool) error {
	start := manager.Start
	if again {
		start = manager.Restart
	}
	err := start()
	if err == nil {
		err = s.Ready(m.ctx)
	}
	if err == nil {
		return nil
	}
	m.say("The service does not start. The end of its log:")
	_ = m.show(m.logCommand(s.Log, 6, false)) // the reason counts, with or without the log
	return fmt.Errorf("the service does not start, and is tried again and again (%w); see homeroom logs, and homeroom stop", err)
}

// sayNext says what somebody who has just installed the service wants to know.
func (m *Machine) sayNext(s Settings) {
	m.say("\nHomeroom runs, and starts at every boot.\n")
	for i, way := range s.Ways {
		m.say("  %-14s %s", []string{"connect", "or"}[min(i, 1)], way)
	}
	for i, page := range s.Pages {
		m.say("  %-14s %s", []string{"page", "or"}[min(i, 1)], page)
	}
	m.say("  %-14s sudo homeroom admin add NAME", "administrator")
	m.say("  %-14s %s; after a change: sudo homeroom reload", "settings", m.at(SettingsFile))
	m.say("  %-14s %s; keep a copy of its homeroom.key in another place", "data", m.at(s.Data))
	m.say("  %-14s sudo homeroom logs -f", "log")
}
