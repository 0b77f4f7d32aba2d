package service

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	kardianos "github.com/kardianos/service"
)

// Control starts, stops or restarts the installed service, as verb says. A stop needs
// no settings.
func (m *Machine) Control(verb string, s Settings) error {
	if !m.installed() {
		return ErrNotInstalled
	}
	manager, err := m.connect(m.ownScript(s.Data))
	if err != nil {
		return fmt.Errorf("cannot reach the service manager: %w", err)
	}
	if verb == "stop" {
		if err := manager.Stop(); err != nil {
			return fmt.Errorf("cannot stop the service: %w; see homeroom logs", err)
		}
		m.say("Homeroom is stopped. It starts at the next boot, or with: sudo homeroom start")
		return nil
	}
	if err := m.checkData(s.Data); err != nil {
		return err
	}
	if err := m.startAfresh(manager, s, verb == "restart"); err != nil {
		return err
	}
	m.say("Homeroom runs; to connect: %s", strings.Join(s.Ways, " or "))
	return nil
}

// ShowLog shows the last lines of the service's log, from a file if log names one,
// and with follow those that come later, too.
func (m *Machine) ShowLog(log string, lines int, follow bool) error {
	if !m.installed() {
		return ErrNotInstalled
	}
	return m.show(m.logCommand(log, lines, follow))
}

// logCommand is the program that shows the service's log.
func (m *Machine) logCommand(log string, lines int, follow bool) []string {
	count := strconv.Itoa(lines)
	if m.platform == onSystemd && log == "" {
		command := []string{"journalctl", "--no-pager", "-u", homeroom + ".service", "-n", count}
		if follow {
			command = append(command, "-f")
		}
		return command
	}
	command := []string{"tail", "-n", count}
	if follow {
		command = append(command, "-F") // the file is rotated
	}
	for _, path := range []string{m.at(errorsFile), log} {
		if path != "" && exists(path) {
			command = append(command, path)
		}
	}
	return command
}

// State says in a few words how the installed service is; serves reports whether a
// server runs on its data. "": it is not installed.
func (m *Machine) State(serves bool) string {
	if !m.installed() {
		return ""
	}
	svc, err := m.connect(m.ownScript(Data))
	if err != nil {
		return ""
	}
	state := "stopped; to start it: sudo homeroom start"
	status, err := svc.Status()
	switch {
	case err == nil && status == kardianos.StatusRunning && serves:
		state = "runs"
	case err == nil && status == kardianos.StatusRunning:
		state = "is starting, or fails again and again; see homeroom logs"
	case err != nil && os.Geteuid() == 0 && m.platform == onSystemd:
		state = "failed; see homeroom logs"
	}
	boot := "starts at boot"
	if m.platform == onSystemd && m.run("systemctl", "--quiet", "is-enabled", homeroom+".service") != nil {
		boot = "does not start at boot"
	}
	return fmt.Sprintf("%s, %s", boot, state)
}
