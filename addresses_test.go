package main

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"homeroom/certs"
	"homeroom/mdns"
)

// TestMachineNames: the certificate is for every name and address of this machine.
func TestMachineNames(t *testing.T) {
	t.Parallel()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	n := machineNames("")
	for _, want := range []string{"localhost", strings.ToLower(host), strings.ToLower(strings.Split(host, ".")[0]) + ".local"} {
		if !slices.Contains(n.Hosts, want) {
			t.Errorf("%s is missing in %v", want, n.Hosts)
		}
	}
	for _, a := range addrs {
		if ip := netip.MustParsePrefix(a.String()).Addr(); !slices.Contains(n.Addrs, ip) && !mdns.Fleeting(ip) {
			t.Errorf("%v is missing in %v", ip, n.Addrs)
		}
	}
}

func TestHostNames(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"pi": "pi pi.local localhost", "Pi.lan.": "pi.lan pi pi.local localhost", "pi.local": "pi.local pi localhost",
		"": "localhost", "localhost": "localhost localhost.local", "a b": "localhost", "küche": "localhost", "my_pi": "my_pi my_pi.local localhost",
	} {
		if got := strings.Join(hostNames(host), " "); got != want {
			t.Errorf("%q: got %q, want %q", host, got, want)
		}
	}
}

// TestFoundHostInCert: the certificate holds the name by which the server is found.
func TestFoundHostInCert(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"ClassRoom": true, "": false} {
		cfg := testConfig(t)
		cfg.Find.Name = name
		k, err := certs.Open(cfg.certificateOptions(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		leaf := k.Get(time.Now()).Leaf
		if got := leaf.VerifyHostname("classroom.local") == nil; got != want {
			t.Errorf("find.name = %q: the certificate is for %q", name, leaf.DNSNames)
		}
	}
}
