package main

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// reachable is the addresses under which a listener can be reached: the one it
// has, or this machine's where it listens on all.
func reachable(ip net.IP) []string {
	if !ip.IsUnspecified() {
		return []string{ip.String()}
	}
	var hosts []string
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			hosts = append(hosts, n.IP.String())
		}
	}
	if len(hosts) == 0 {
		return []string{"127.0.0.1"}
	}
	return hosts
}

// telnetTo is what to type to get to a server.
func telnetTo(host, port string) string { return "telnet " + host + " " + port }

// addressOf is the IP address of one end of a connection; invalid if it has none.
func addressOf(end net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(end.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// localAddress is how a program on this machine reaches a listener.
func localAddress(at net.Addr) string {
	tcp, ok := at.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return at.String()
	}
	return net.JoinHostPort("", strconv.Itoa(tcp.Port))
}

// pingLine connects to a port of this machine and has a word come back.
func pingLine(at net.Addr, within time.Duration) error {
	conn, err := net.DialTimeout("tcp", localAddress(at), within)
	if err != nil {
		return fmt.Errorf("connecting to the server's own port: %w", err)
	}
	defer conn.Close()
	err = conn.SetDeadline(time.Now().Add(within))
	if err == nil {
		_, err = conn.Write([]byte("#ping watchdog\r\n"))
	}
	if err != nil {
		return fmt.Errorf("speaking to the server's own port: %w", err)
	}
	for in := bufio.NewReader(conn); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("no line comes back from the server's own port: %w", err)
		}
		if strings.HasPrefix(line, "@ret #ping") || strings.HasPrefix(line, "@mess #warning") {
			return nil
		}
	}
}

// publicAddress is an address as others have it; not valid, where it is for this
// machine alone.
func publicAddress(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() {
		return netip.AddrPort{}
	}
	at := tcp.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// waysIn is how each address under which a listener can be reached is written.
func waysIn(listen string, write func(host, port string) string) (ways []string) {
	at, err := net.ResolveTCPAddr("tcp", listen)
	if err != nil {
		return []string{listen}
	}
	ip := at.IP
	if ip == nil {
		ip = net.IPv6unspecified
	}
	for _, host := range reachable(ip) {
		ways = append(ways, write(host, strconv.Itoa(at.Port)))
	}
	return ways
}

// listeningText says where the server listens and what to type to get there.
func listeningText(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return "listening on " + a.String()
	}
	var try []string
	for _, host := range reachable(tcp.IP) {
		try = append(try, telnetTo(host, strconv.Itoa(tcp.Port)))
	}
	return fmt.Sprintf("listening on %s; to connect: %s", a, strings.Join(try, " or "))
}
