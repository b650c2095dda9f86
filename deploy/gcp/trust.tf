resource "google_iam_workload_identity_pool" "sallyport" {
  project                   = "739000000001"
  workload_identity_pool_id = "platform"
}

resource "google_iam_workload_identity_pool_provider" "sallyport" {
  project                            = "739000000001"
  workload_identity_pool_id          = google_iam_workload_identity_pool.sallyport.workload_identity_pool_id
  workload_identity_pool_provider_id = "sallyport"
  attribute_mapping                  = { "google.subject" = "assertion.sub" }
  attribute_condition                = "google.subject.startsWith(\"sallyport:\")"
  oidc {
    issuer_uri        = "https://sts.example/assertions"
    allowed_audiences = ["https://iam.googleapis.com/projects/739000000001/locations/global/workloadIdentityPools/platform/providers/sallyport"]
  }
}

resource "google_service_account_iam_member" "orders_storage" {
  service_account_id = "projects/-/serviceAccounts/108000000000000000001"
  role               = "roles/iam.workloadIdentityUser"
  member             = "principal://iam.googleapis.com/projects/739000000001/locations/global/workloadIdentityPools/platform/subject/sallyport:orders-storage"
}
