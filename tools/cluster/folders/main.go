// Copyright (c) the restorepoint.core authors
// GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// Folders is a CSI driver for tests: a volume is a folder, a snapshot is a copy of one.
//
// It answers CSI 1.12 (identity, controller, group controller) on a Unix socket. It has no node service: no pod of the
// test cluster ever runs, and tests read and write the folders themselves. It needs no root. Faults are told to it by
// files (see fault). Started by tools/cluster.py; the csi-provisioner and the csi-snapshotter call it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// faultCodes are the codes of gRPC that a fault can name.
var faultCodes = map[string]codes.Code{
	"internal":    codes.Internal,
	"unavailable": codes.Unavailable,
	"exhausted":   codes.ResourceExhausted,
	"invalid":     codes.InvalidArgument,
	"deadline":    codes.DeadlineExceeded,
}

// fault is what a file faults/METHOD in the data folder asks for, as JSON. It holds as long as the file is there.
type fault struct {
	Match   string  `json:"match"`   // only for requests whose text contains this
	Delay   float64 `json:"delay"`   // seconds to wait first
	Code    string  `json:"code"`    // a word of faultCodes; empty: the call succeeds
	Message string  `json:"message"` // the driver's own words for it
	Unready bool    `json:"unready"` // snapshots are there, and not ready to use
}

// faultFor returns what is asked for a method and the text of its request.
func faultFor(data, method, request string) fault {
	var told fault
	content, err := os.ReadFile(filepath.Join(data, "faults", method))
	if err != nil {
		return fault{}
	}
	if err := json.Unmarshal(content, &told); err != nil {
		return fault{Code: "internal", Message: "the fault for " + method + " is not JSON: " + err.Error()}
	}
	if !strings.Contains(request, told.Match) {
		return fault{}
	}
	return told
}

// intercept writes each call into the log, and carries out the fault that is told for it.
func intercept(data string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		method, text := path.Base(info.FullMethod), fmt.Sprint(request)
		told := faultFor(data, method, text)
		select {
		case <-time.After(time.Duration(told.Delay * float64(time.Second))):
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		var answer any
		var err error
		if told.Code != "" {
			code, known := faultCodes[told.Code]
			if !known {
				code = codes.Unknown
			}
			err = status.Error(code, told.Message)
		} else {
			answer, err = handle(ctx, request)
		}
		if method != "Probe" {
			log.Printf("%s %s -> %v", method, text, err)
		}
		return answer, err
	}
}

func main() {
	socket := flag.String("socket", "", "the Unix socket to answer on")
	data := flag.String("data", "", "the folder for volumes, snapshots, records and faults")
	name := flag.String("name", "folders.restorepoint.test", "the driver's name")
	flag.Parse()
	store, err := newStore(*data)
	if err != nil {
		log.Fatalf("cannot use the data folder %q: %v", *data, err)
	}
	_ = os.Remove(*socket)
	listener, err := net.Listen("unix", *socket)
	if err != nil {
		log.Fatalf("cannot listen on %q: %v", *socket, err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(intercept(*data)))
	csi.RegisterIdentityServer(server, &identity{name: *name})
	csi.RegisterControllerServer(server, &controller{store: store})
	csi.RegisterGroupControllerServer(server, &groups{store: store})
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ends
		server.Stop()
	}()
	if err := server.Serve(listener); err != nil {
		log.Fatalf("cannot serve: %v", err)
	}
}
