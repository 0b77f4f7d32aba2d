package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/kardianos/service"
)

// control starts, stops or restarts the installed service.
func (m *machine) control(verb string) error {
	if !m.installed() {
		return errNotInstalled
	}
	cfg, err := m.serviceSettings()
	if err != nil && verb != "stop" {
		return err
	}
	service, err := m.connect(m.ownScript(cfg.Server.Data))
	if err != nil {
		return fmt.Errorf("cannot reach the service manager: %w", err)
	}
	if verb == "stop" {
		if err := service.Stop(); err != nil {
			return fmt.Errorf("cannot stop the service: %w; see homeroom logs", err)
		}
		m.say("Homeroom is stopped. It starts at the next boot, or with: sudo homeroom start")
		return nil
	}
	if err := m.startAfresh(service, &cfg, verb == "restart"); err != nil {
		return err
	}
	m.say("Homeroom runs; to connect: %s", strings.Join(waysIn(cfg.Server.Listen, telnetTo), " or "))
	return nil
}

// logCommand is the program that shows the service's log.
func (m *machine) logCommand(cfg *config, lines int, follow bool) []string {
	count := strconv.Itoa(lines)
	file := cfg.logFile()
	if m.platform == onSystemd && file == "" {
		command := []string{"journalctl", "--no-pager", "-u", serviceName + ".service", "-n", count}
		if follow {
			command = append(command, "-f")
		}
		return command
	}
	command := []string{"tail", "-n", count}
	if follow {
		command = append(command, "-F") // the file is rotated
	}
	for _, path := range []string{m.at(serviceErrors), file} {
		if path != "" && exists(path) {
			command = append(command, path)
		}
	}
	return command
}

// serviceState says in a few words how the installed service is; serves is
// whether a server runs on its data. "": it is not installed.
func (m *machine) serviceState(serves bool) string {
	if !m.installed() {
		return ""
	}
	svc, err := m.connect(m.ownScript(serviceData))
	if err != nil {
		return ""
	}
	state := "stopped; to start it: sudo homeroom start"
	status, err := svc.Status()
	switch {
	case err == nil && status == service.StatusRunning && serves:
		state = "runs"
	case err == nil && status == service.StatusRunning:
		state = "is starting, or fails again and again; see homeroom logs"
	case err != nil && os.Geteuid() == 0 && m.platform == onSystemd:
		state = "failed; see homeroom logs"
	}
	boot := "starts at boot"
	if m.platform == onSystemd && m.run("systemctl", "--quiet", "is-enabled", serviceName+".service") != nil {
		boot = "does not start at boot"
	}
	return fmt.Sprintf("%s, %s", boot, state)
}
