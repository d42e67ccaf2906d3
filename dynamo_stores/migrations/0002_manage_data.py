from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("dynamo_stores", "0001_status"),)
    operations = (
        migrations.AlterModelOptions(
            name="status",
            options={
                "base_manager_name": "objects",
                "default_permissions": (),
                "managed": False,
                "permissions": (
                    ("view_status", "Can view the status of DynamoDB"),
                    ("manage_capacity", "Can reset circuit breakers and change capacity"),
                    ("manage_data", "Can delete cache entries, reset limits and release jobs"),
                ),
                "verbose_name": "status",
                "verbose_name_plural": "Status",
            },
        ),
    )
