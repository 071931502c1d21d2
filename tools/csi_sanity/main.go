// Copyright (c) the restorepoint.core authors
// GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// CSI_sanity runs Kubernetes' own conformance tests for CSI drivers (csi-test) on a driver without a node service.
//
// The tests ask that service for the node's name even where they test the controller, and take back after each test what
// it might have published. So one stands beside the driver that says just that, publishes nothing, and hands the
// questions who the driver is on to the driver. All else is answered by the driver itself. Flags of Ginkgo choose the
// tests, and name the report. Built and called by tools/csi_sanity.py.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// beside is the node service, and the driver's own identity.
type beside struct {
	csi.UnimplementedNodeServer
	csi.UnimplementedIdentityServer
	driver csi.IdentityClient
}

func (b *beside) NodeGetCapabilities(
	context.Context, *csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

func (b *beside) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "lab"}, nil
}

func (b *beside) NodeUnpublishVolume(
	context.Context, *csi.NodeUnpublishVolumeRequest,
) (*csi.NodeUnpublishVolumeResponse, error) {
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (b *beside) GetPluginInfo(
	ctx context.Context, request *csi.GetPluginInfoRequest,
) (*csi.GetPluginInfoResponse, error) {
	return b.driver.GetPluginInfo(ctx, request)
}

func (b *beside) Probe(ctx context.Context, request *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return b.driver.Probe(ctx, request)
}

func (b *beside) GetPluginCapabilities(
	ctx context.Context, request *csi.GetPluginCapabilitiesRequest,
) (*csi.GetPluginCapabilitiesResponse, error) {
	return b.driver.GetPluginCapabilities(ctx, request)
}

// serve answers on a socket, in front of the driver on another one.
func serve(socket, driver string) error {
	connection, err := grpc.NewClient("unix://"+driver, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	service := &beside{driver: csi.NewIdentityClient(connection)}
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, service)
	csi.RegisterNodeServer(server, service)
	go func() {
		log.Fatalf("cannot serve: %v", server.Serve(listener))
	}()
	return nil
}

// outcome is told whether a test failed.
type outcome struct{ failed bool }

func (o *outcome) Fail() { o.failed = true }

func main() {
	driver := flag.String("driver", "", "the Unix socket of the driver")
	folder := flag.String("folder", "", "an empty folder for its own socket, and for what it makes")
	flag.Parse()
	socket := filepath.Join(*folder, "node.sock")
	if err := serve(socket, *driver); err != nil {
		log.Fatalf("cannot stand beside the driver on %q: %v", *driver, err)
	}
	config := sanity.NewTestConfig()
	config.Address, config.ControllerAddress = socket, *driver
	config.TargetPath, config.StagingPath = filepath.Join(*folder, "target"), filepath.Join(*folder, "staging")
	told := &outcome{}
	sanity.Test(told, config)
	if told.failed {
		os.Exit(1)
	}
}
