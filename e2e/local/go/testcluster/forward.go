package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const dialTimeout = 5 * time.Second

// forward listens where it is started and opens, for each connection, one inside another network namespace, so that
// programs of the host reach the API server without the host having an address on the cluster's network.
func forward(arguments []string) error {
	flags := flag.NewFlagSet("forward", flag.ContinueOnError)
	listen := flags.String("listen", "", "address to listen on, in the namespace this is started in")
	namespace := flags.String("namespace", "", "path of the network namespace to connect in")
	target := flags.String("target", "", "address to connect to, in that namespace")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *listen == "" || *namespace == "" || *target == "" {
		return fmt.Errorf("--listen, --namespace and --target are all required")
	}
	inside, err := newNamespaceDialer(*namespace)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			server, err := inside.dial(*target)
			if err != nil {
				log.Printf("connect to %s in %s: %v", *target, *namespace, err)
				client.Close()
				return
			}
			splice(client.(*net.TCPConn), server.(*net.TCPConn))
		}()
	}
}

// namespaceDialer opens connections on one thread that lives in another network namespace. A socket keeps the
// namespace it was made in, so only the dialing needs that thread.
type namespaceDialer struct {
	requests chan dialRequest
}

type dialRequest struct {
	address string
	answer  chan<- dialAnswer
}

type dialAnswer struct {
	connection net.Conn
	err        error
}

func newNamespaceDialer(path string) (*namespaceDialer, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	dialer := &namespaceDialer{requests: make(chan dialRequest)}
	entered := make(chan error)
	go func() {
		// Never unlocked: the thread may not go back to running code that belongs to the host's namespace.
		runtime.LockOSThread()
		err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
		file.Close()
		entered <- err
		if err != nil {
			return
		}
		for request := range dialer.requests {
			// A literal IP address and no dual stack: net.Dialer then makes its socket on this goroutine's thread.
			connection, err := (&net.Dialer{Timeout: dialTimeout}).Dial("tcp4", request.address)
			request.answer <- dialAnswer{connection, err}
		}
	}()
	if err := <-entered; err != nil {
		return nil, fmt.Errorf("enter %s: %w", path, err)
	}
	return dialer, nil
}

func (d *namespaceDialer) dial(address string) (net.Conn, error) {
	answer := make(chan dialAnswer, 1)
	d.requests <- dialRequest{address, answer}
	result := <-answer
	return result.connection, result.err
}

// splice copies both ways and passes on each side's end of stream, so that half-closed streams stay usable.
func splice(a, b *net.TCPConn) {
	var copies sync.WaitGroup
	for _, pair := range [][2]*net.TCPConn{{a, b}, {b, a}} {
		copies.Go(func() {
			if _, err := io.Copy(pair[0], pair[1]); err != nil {
				// A broken stream cannot end in order; the other direction must not wait for it.
				a.Close()
				b.Close()
				return
			}
			pair[0].CloseWrite()
		})
	}
	copies.Wait()
	a.Close()
	b.Close()
}
