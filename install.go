package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"homeroom/datadir"
)

// install makes the program a service of the machine, or upgrades the one that is
// there. What it finds it keeps.
func (m *machine) install(start bool) error {
	if unit := m.packaged(); unit != "" {
		return fmt.Errorf("a package of the system has installed the service (%s); upgrade that package", unit)
	}
	cfg, err := m.serviceSettings()
	if err != nil {
		return err
	}
	upgrade := m.installed()
	service, err := m.connect(m.ownScript(cfg.Server.Data))
	if err != nil {
		return fmt.Errorf("cannot reach the service manager: %w", err)
	}
	steps := []func() error{m.makeUser, func() error { return m.makeData(cfg.Server.Data) }, m.writeSettings, m.copyProgram}
	for _, step := range append(steps, func() error { return m.writeUnit(service, &cfg) }) {
		if err := step(); err != nil {
			return err
		}
	}
	if !start {
		m.say("Homeroom is installed and starts at every boot. To start it now: sudo homeroom start")
		return nil
	}
	if err := m.startAfresh(service, &cfg, upgrade); err != nil {
		return err
	}
	m.sayNext(&cfg)
	return nil
}

// serviceSettings is what the service has for settings, or will have.
func (m *machine) serviceSettings() (config, error) {
	path := m.at(installedSettings)
	if !exists(path) {
		cfg := defaultConfig()
		return cfg, cfg.parse(path, serviceSample(m.platform))
	}
	cfg, err := loadConfig(path)
	if err != nil {
		return cfg, err
	}
	data := cfg.Server.Data
	if !filepath.IsAbs(data) {
		return cfg, fmt.Errorf("%s: server.data must be a whole path for a service, like %q, not %q", path, serviceData, data)
	}
	for _, hidden := range []string{"/home", "/root", "/run/user", "/tmp", "/var/tmp"} {
		if inside, err := filepath.Rel(hidden, data); err == nil && filepath.IsLocal(inside) {
			return cfg, fmt.Errorf("%s: server.data must not be under %s, which the service does not see", path, hidden)
		}
	}
	return cfg, nil
}

// serviceSample is the settings file that a new service gets. Without a journal the
// log goes to a file, which the server keeps small.
func serviceSample(platform string) string {
	text := strings.Replace(sampleConfig, `data   = "data"            `, fmt.Sprintf("data   = %q", serviceData), 1)
	if platform != onSystemd {
		text = strings.Replace(text, `to = "stderr"  `, `to = "file"    `, 1)
		text = strings.Replace(text, `file = ""`, fmt.Sprintf("file = %q", serviceLog), 1)
	}
	return text
}

// makeData makes the data folder, for the service's user alone.
func (m *machine) makeData(folder string) error {
	user, ok := m.user()
	if !ok {
		return fmt.Errorf("the user %s is not there, although it was made", serviceName)
	}
	path := m.at(folder)
	if info, err := os.Stat(path); err == nil && folder != serviceData {
		if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != user.id {
			return fmt.Errorf("the data folder %s is not the service's; if it is to be: sudo chown -R %s: %s", path, serviceName, path)
		}
	}
	err := makeOpenFolder(filepath.Dir(path))
	if err == nil {
		err = datadir.Make(path)
	}
	if err == nil {
		err = errors.Join(os.Chmod(path, 0o700), os.Chown(path, user.id, user.group))
	}
	if err != nil {
		return fmt.Errorf("cannot make the data folder: %w", err)
	}
	return datadir.GiveFiles(path, user.id, user.group)
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
func (m *machine) writeSettings() error {
	path := m.at(installedSettings)
	if exists(path) {
		m.say("kept  %s", path)
		return nil
	}
	if err := writeWhole(path, strings.NewReader(serviceSample(m.platform)), 0o644); err != nil {
		return fmt.Errorf("cannot write the settings: %w", err)
	}
	m.say("wrote %s", path)
	return nil
}

// copyProgram puts the program that runs now in its place.
func (m *machine) copyProgram() error {
	path := m.at(serviceProgram)
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
func (m *machine) writeUnit(service manager, cfg *config) error {
	path := m.unitFile()
	upgrade := exists(path)
	var err error
	if upgrade {
		err = writeWhole(path, strings.NewReader(m.ownScript(cfg.Server.Data)), map[bool]os.FileMode{true: 0o644, false: 0o755}[m.platform == onSystemd])
	} else {
		err = service.Install()
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

// enable does what the library leaves out.
func (m *machine) enable(upgrade bool) error {
	switch {
	case m.platform == onSystemd && upgrade:
		return errors.Join(m.run("systemctl", "daemon-reload"), m.run("systemctl", "--quiet", "enable", serviceName+".service"))
	case m.platform == onOpenRC && upgrade:
		return m.run("rc-update", "add", serviceName)
	case m.platform == onSysV && m.has("update-rc.d"): // the library's links have no order
		return m.run("update-rc.d", serviceName, "defaults")
	}
	return nil
}

// startAfresh starts the service, or starts it anew, and waits until it serves.
func (m *machine) startAfresh(service manager, cfg *config, again bool) error {
	start := service.Start
	if again {
		start = service.Restart
	}
	err := start()
	if err == nil {
		err = m.ready(m.ctx, cfg)
	}
	if err == nil {
		return nil
	}
	m.say("The service does not start. The end of its log:")
	_ = m.show(m.logCommand(cfg, 6, false)) // the reason counts, with or without the log
	return fmt.Errorf("the service does not start, and is tried again and again (%w); see homeroom logs, and homeroom stop", err)
}

// waitReady waits until the server that the settings are for answers on its port.
func waitReady(ctx context.Context, cfg *config) error {
	const longest, pause = 60 * time.Second, 50 * time.Millisecond
	ctx, cancel := context.WithTimeoutCause(ctx, longest, errors.New("it does not answer"))
	defer cancel()
	for {
		process, err := datadir.User(cfg.Server.Data)
		if err != nil {
			return err
		}
		at, err := net.ResolveTCPAddr("tcp", cfg.Server.Listen)
		if err != nil {
			return fmt.Errorf("server.listen: %w", err)
		}
		if process != "" && (at.Port == 0 || pingLine(at, longest/10) == nil) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// sayNext says what somebody who has just installed the service wants to know.
func (m *machine) sayNext(cfg *config) {
	m.say("\nHomeroom runs, and starts at every boot.\n")
	for i, way := range waysIn(cfg.Server.Listen, telnetTo) {
		m.say("  %-14s %s", []string{"connect", "or"}[min(i, 1)], way)
	}
	if cfg.Web.Listen != "" {
		for i, way := range waysIn(cfg.Web.Listen, func(host, port string) string { return "http://" + net.JoinHostPort(host, port) + "/" }) {
			m.say("  %-14s %s", []string{"page", "or"}[min(i, 1)], way)
		}
	}
	m.say("  %-14s sudo homeroom admin add NAME", "administrator")
	m.say("  %-14s %s; after a change: sudo homeroom reload", "settings", m.at(installedSettings))
	m.say("  %-14s %s; keep a copy of its homeroom.key in another place", "data", m.at(cfg.Server.Data))
	m.say("  %-14s sudo homeroom logs -f", "log")
}
